//! Peers that fail without closing their SAs: one that reboots, and one that becomes unreachable.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::named;

use crate::harness::{
    PATIENCE, World,
    sas::Sas,
    targets::{ask, here},
    text,
};

/// The longest time from the start of a rebooted device to traffic.
const BACK: Duration = Duration::from_secs(5);

/// The bound of one attempt; attempts repeat until one succeeds.
const TRY: Duration = Duration::from_secs(1);

/// The longest time until a call without an answer is told.
const TOLD: Duration = Duration::from_secs(10);

/// The longest time until the connection of a dead peer is `DOWN`.
const DEAD: Duration = Duration::from_secs(30);

#[test]
fn a_device_that_reboots_is_back_at_once_and_its_old_sas_are_removed() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(here)?;
    let mut site = world.connected_site(0, &published.tunnel)?;
    let before = Sas::of_gateway(&world, 0)?;
    assert_eq!(ask(&site.namespace, published.door, PATIENCE)?, "here");
    ensure!(before.ike.len() == 1 && before.child.len() == 1, "{before:?}");

    // The gateway is not notified, and still has the negotiated SAs.
    site.kill()?;
    assert_eq!(Sas::of_gateway(&world, 0)?, before);
    site.start(&world.lab, &world.vpn_config(&published.tunnel)?)?;
    let back = || ask(&site.namespace, published.door, TRY).map(Some);
    assert_eq!(world.lab.until("traffic from the rebooted device", BACK, back)?, "here");
    world.lab.until("the gateway has only the new SAs", PATIENCE, || {
        let after = Sas::of_gateway(&world, 0)?;
        let is_new = |old: &[String], new: &[String]| new.len() == 1 && new != old;
        Ok((is_new(&before.ike, &after.ike) && is_new(&before.child, &after.child)).then_some(()))
    })?;
    world.end()
}

#[test]
fn a_silent_peer_is_down_within_thirty_seconds_and_reconnects() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(here)?;
    let site = world.connected_site(0, &published.tunnel)?;
    assert_eq!(ask(&site.namespace, published.door, PATIENCE)?, "here");

    world.cut("site0")?;
    let cut = Instant::now();
    let id = text(&published.tunnel, "id")?;
    let path = format!("ipsec-tunnels/{id}");
    let down = world.gateway.wait(&world.lab, &path, "DOWN", DEAD, |t| t["connection"]["state"] == "DOWN")?;
    eprintln!("DOWN after {:?}", cut.elapsed());
    let error = &down["connection"]["lastError"];
    ensure!(error["reason"] == "PeerDoesNotAnswer" && error["since"].is_string(), "{down}");
    // An unreachable peer is not an error of the tunnel.
    ensure!(down["status"] == "DEPLOYED" && down["connection"]["algorithms"].is_null(), "{down}");
    world.restore()?;
    // The device detects the loss and reconnects.
    world.gateway.wait(&world.lab, &path, "UP", PATIENCE, |t| t["connection"]["state"] == "UP")?;
    assert_eq!(ask(&site.namespace, published.door, PATIENCE)?, "here");

    // Each change of the connection is an event.
    let states = connections(&world, id)?;
    ensure!(states.ends_with(&["UP".to_owned(), "DOWN".to_owned(), "UP".to_owned()]), "{states:?}");
    world.end()
}

#[test]
fn a_device_that_never_answers_the_gateways_call_is_told() -> Result<()> {
    let world = World::with_sites(1).start()?;
    world.cut("site0")?;
    let tunnel = world.tunnel(0)?;
    let path = format!("ipsec-tunnels/{}", text(&tunnel, "id")?);
    let begin = Instant::now();
    world.gateway.api.patch(&world.gateway.at(&path), &json!({"initiate": true}))?;
    let is_told = |t: &Value| t["connection"]["lastError"]["reason"] == "PeerDoesNotAnswer";
    // Longer than the promise, for a machine that does other things, too; less than the gateway waits for answers.
    let told = world.gateway.wait(&world.lab, &path, "told", TOLD, is_told)?;
    named("PeerDoesNotAnswer", begin.elapsed());
    ensure!(told["connection"]["state"] == "CONNECTING", "{told}");
    let since = |t: &Value| t["connection"]["lastError"]["since"].clone();
    // The end of the attempt is the same fault.
    let ended = |t: &Value| t["connection"]["state"] == "DOWN" && is_told(t);
    let down = world.gateway.wait(&world.lab, &path, "DOWN", DEAD, ended)?;
    assert_eq!(since(&down), since(&told), "{down}");
    world.restore()?;
    world.end()
}

/// The states of a tunnel's connection in the order of its events, without `CONNECTING`.
fn connections(world: &World, id: &str) -> Result<Vec<String>> {
    let events = world.events("connection", id)?;
    let states = events.iter().filter_map(|e| e["status"].as_str().map(str::to_owned));
    Ok(states.filter(|s| s != "CONNECTING").collect())
}
