//! Resets of SAs over the API, with the outcome that was seen, and keys that are changed with a cut.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::harness::{
    PATIENCE, World,
    sas::Sas,
    targets::{connect, echo, exchange},
    text,
};

/// A reset of a peer without an answer fails after 22 s.
const OUTCOME: Duration = Duration::from_secs(60);

/// The status and the message of the reset's execution.
fn reset(world: &World, tunnel: &Value, scope: &str, mode: &str) -> Result<(String, String)> {
    let path = format!("ipsec-tunnels/{}/reset", text(tunnel, "id")?);
    let body = json!({"scope": scope, "mode": mode});
    let begun = world.gateway.api.post(&world.gateway.at(&path), &body)?;
    assert_eq!(begun["status"], "RUNNING");
    let path = format!("executions/{}", text(&begun, "id")?);
    let ended =
        world.gateway.wait(&world.lab, &path, "an outcome", OUTCOME, |it| it["status"] != "RUNNING")?;
    Ok((text(&ended, "status")?.to_owned(), text(&ended, "message")?.to_owned()))
}

fn is(status: &str, message: &str) -> (String, String) {
    (status.to_owned(), message.to_owned())
}

#[test]
fn sas_are_rekeyed_under_traffic_and_restarted_and_the_execution_says_so() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(echo)?;
    let tunnel = &published.tunnel;
    let none = reset(&world, tunnel, "ike", "rekey")?;
    assert_eq!(none, is("FAILED", "the IKE SA does not exist: the site's device is not connected"));
    let site = world.connected_site(0, tunnel)?;
    let mut open = connect(&site.namespace, published.door, PATIENCE)?;
    exchange(&mut open, b"before")?;

    let before = Sas::of(&site)?;
    assert_eq!(reset(&world, tunnel, "child", "rekey")?, is("SUCCESS", "the CHILD SA was rekeyed"));
    let alone = |what, is_done: &dyn Fn(&Sas) -> bool| {
        world.lab.until(what, PATIENCE, || {
            let now = Sas::of(&site)?;
            Ok((now.ike.len() == 1 && now.child.len() == 1 && is_done(&now)).then_some(()))
        })
    };
    alone("another CHILD SA", &|now| now.child != before.child && now.ike == before.ike)?;
    exchange(&mut open, b"after a rekey of the CHILD SA")?;
    assert_eq!(reset(&world, tunnel, "ike", "rekey")?, is("SUCCESS", "the IKE SA was rekeyed"));
    alone("another IKE SA", &|now| now.ike != before.ike)?;
    exchange(&mut open, b"after a rekey of the IKE SA")?;

    let before = Sas::of(&site)?;
    let ended = "the CHILD SA was ended: the site's device has to start it again";
    assert_eq!(reset(&world, tunnel, "child", "restart")?, is("SUCCESS", ended));
    // The device may start another one at once.
    let child = &before.child;
    world
        .lab
        .until("the CHILD SA is gone", PATIENCE, || Ok((Sas::of(&site)?.child != *child).then_some(())))?;
    let ended = "the IKE SA was ended: the site's device has to start it again";
    assert_eq!(reset(&world, tunnel, "ike", "restart")?, is("SUCCESS", ended));
    world
        .lab
        .until("the IKE SA is gone", PATIENCE, || Ok((Sas::of(&site)?.ike != before.ike).then_some(())))?;

    // With `initiate`, they are started again; the connection passed through all of it.
    let path = world.gateway.at(&format!("ipsec-tunnels/{}", text(tunnel, "id")?));
    world.gateway.api.patch(&path, &json!({"initiate": true}))?;
    site.connected(&world.lab, PATIENCE)?;
    world.gateway.deployed(&world.lab, "ipsec-tunnels", text(tunnel, "id")?)?;
    exchange(&mut open, b"the gateway has started it")?;
    for (scope, what) in [("child", "the CHILD SA"), ("ike", "the IKE SA")] {
        let again = format!("{what} was ended, and is established again");
        assert_eq!(reset(&world, tunnel, scope, "restart")?, is("SUCCESS", &again));
        exchange(&mut open, b"again")?;
    }
    drop(site);
    world.end()
}

#[test]
fn a_rekey_without_an_answer_fails_and_says_so() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(echo)?;
    let site = world.connected_site(0, &published.tunnel)?;
    world.cut("site0")?;
    let (status, message) = reset(&world, &published.tunnel, "child", "rekey")?;
    assert_eq!(status, "FAILED");
    let is_told =
        message.starts_with("the CHILD SA was not rekeyed: the peer d") && message.contains("not answer");
    assert!(is_told, "{message}");
    world.restore()?;
    drop(site);
    world.end()
}

#[test]
fn a_key_changed_with_a_cut_ends_what_is_up_and_lets_only_the_new_one_in() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(echo)?;
    let tunnel = &published.tunnel;
    let mut site = world.connected_site(0, tunnel)?;
    let psk = world.gateway.at(&format!("ipsec-tunnels/{}/psk", text(tunnel, "id")?));
    // Without a cut, what is up stays up.
    world.gateway.api.post(&psk, &json!({"graceSeconds": 0}))?;
    world.gateway.deployed(&world.lab, "ipsec-tunnels", text(tunnel, "id")?)?;
    assert_eq!(Sas::of(&site)?.child.len(), 1);
    world.gateway.api.post(&psk, &json!({"cut": true}))?;
    let cut = world.gateway.deployed(&world.lab, "ipsec-tunnels", text(tunnel, "id")?)?;
    assert_eq!(cut.get("previousKeyUntil"), None);
    world
        .lab
        .until("the device's SAs are ended", PATIENCE, || Ok(Sas::of(&site)?.ike.is_empty().then_some(())))?;
    assert!(!site.try_connect()?, "an older key connects");
    let path = format!("ipsec-tunnels/{}", text(tunnel, "id")?);
    let is_told = |t: &Value| t["connection"]["lastError"]["reason"] == "PreSharedKeysDiffer";
    world.gateway.wait(&world.lab, &path, "the older key is told", PATIENCE, is_told)?;

    site.load(&world.vpn_config(tunnel)?)?;
    world.lab.until("it connects with the new key", PATIENCE, || Ok(site.try_connect()?.then_some(())))?;
    let before = Sas::of(&site)?;
    // A cut is made once: neither another change nor another start of the gateway repeats it.
    world.gateway.api.patch(&world.gateway.at(&path), &json!({"description": "changed"}))?;
    world.gateway.deployed(&world.lab, "ipsec-tunnels", text(tunnel, "id")?)?;
    let mut world = world;
    world.gateway.process.kill()?;
    world.restart()?;
    world.gateway.wait(&world.lab, &path, "UP", PATIENCE, |t| t["connection"]["state"] == "UP")?;
    assert_eq!(Sas::of(&site)?, before);
    exchange(&mut connect(&site.namespace, published.door, PATIENCE)?, b"served")?;
    site.stop()?;
    world.end()
}
