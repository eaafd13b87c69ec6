//! The API reports the cause when something outside the product fails.

use std::{
    io::Read as _,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::named;

use crate::harness::{
    AT_ONCE, PATIENCE, SITE_CLIENT, World, door,
    targets::{ask, connect_as, connect_or_reset, here, is_refused},
    text,
};

/// From the first moment that a client or an operator could complain until the API says why.
const NAMED: Duration = Duration::from_secs(5);

#[test]
fn a_target_that_refuses_is_reported_and_its_client_is_closed_at_once() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    // No service listens at this port.
    let share = world.share("unserved", &tunnel, &zid, world.target(7009), 9000)?;

    let path = format!("ipsec-shares/{}", text(&share, "id")?);
    let begin = Instant::now();
    if let Some(mut stream) = connect_or_reset(&world.outside, door(&tunnel, 9000)?, PATIENCE)? {
        let ended = stream.read(&mut [0; 1]);
        ensure!(!matches!(ended, Ok(1..)), "received a byte from a target that does not exist");
    }
    let took = begin.elapsed();
    ensure!(took < AT_ONCE, "closed only after {took:?}");

    let share = world.gateway.wait(&world.lab, &path, "DEPLOYED, target unreachable", PATIENCE, |s| {
        s["status"] == "DEPLOYED" && s["statusDetail"]["reason"] == "TargetUnreachable"
    })?;
    named("TargetUnreachable", begin.elapsed());
    ensure!(!text(&share["statusDetail"], "message")?.is_empty());
    world.end()
}

#[test]
fn a_wrong_key_at_the_site_is_reported() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let tunnel = world.tunnel(0)?;
    let config = world.vpn_config(&tunnel)?;
    let begin = config.find("secret = ").context("no secret in the configuration")?;
    let line = config[begin..].lines().next().context("no secret in the configuration")?;
    let wrong = config.replace(line, "secret = \"a key of another tunnel, to be sure\"");
    ensure!(wrong != config, "the key was not replaced");
    let mut site = world.site(0)?;
    site.start(&world.lab, &wrong)?;
    let begin = Instant::now();
    ensure!(!site.try_connect()?, "a wrong key was accepted");

    let path = format!("ipsec-tunnels/{}", text(&tunnel, "id")?);
    let seen = world.gateway.wait(&world.lab, &path, "PreSharedKeysDiffer", PATIENCE, |t| {
        t["connection"]["lastError"]["reason"] == "PreSharedKeysDiffer"
    })?;
    named("PreSharedKeysDiffer", begin.elapsed());
    // A peer that cannot connect is not an error of the tunnel.
    assert_eq!(seen["status"], "DEPLOYED");
    ensure!(seen["connection"]["state"] != "UP");
    world.end()
}

#[test]
fn a_share_is_ready_only_while_its_site_is_connected() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(here)?;
    let share = format!("ipsec-shares/{}", text(&published.share, "id")?);
    let tunnel = format!("ipsec-tunnels/{}", text(&published.tunnel, "id")?);
    let is = |ready: bool| move |it: &Value| it["status"] == "DEPLOYED" && it["ready"] == ready;
    let wait =
        |path: &str, ready| world.gateway.wait(&world.lab, path, "as ready as expected", NAMED, is(ready));
    let reason = |it: &Value| it["statusDetail"]["reason"].clone();
    ensure!(reason(&wait(&share, false)?) == "PeerDown");
    wait(&tunnel, false)?;

    // The namespace that an operator enters to look inside.
    let namespace = text(&wait(&tunnel, false)?, "namespace")?.to_owned();
    ensure!(world.tunnel_namespaces()?.contains(&namespace), "{namespace}");

    let mut site = world.connected_site(0, &published.tunnel)?;
    ensure!(reason(&wait(&share, true)?).is_null());
    wait(&tunnel, true)?;
    assert_eq!(ask(&site.namespace, published.door, PATIENCE)?, "here");

    // Clients that allowedSources excludes are told to the operator, and the others are served.
    let neighbour = std::net::Ipv4Addr::new(10, 0, 0, 11);
    site.namespace.ip(&format!("addr add {neighbour}/32 dev lo"))?;
    world.patch(&published.share, &json!({"allowedSources": [format!("{SITE_CLIENT}/32")]}))?;
    let begin = Instant::now();
    for _ in 0..3 {
        is_refused(connect_as(&site.namespace, neighbour, published.door, PATIENCE))?;
    }
    let refused = world.gateway.wait(&world.lab, &share, "ConnectionsRefused", NAMED, |s| {
        reason(s) == "ConnectionsRefused" && s["ready"] == true
    })?;
    named("ConnectionsRefused", begin.elapsed());
    let message = text(&refused["statusDetail"], "message")?;
    ensure!(message.contains("allowedSources"), "{message}");
    let connections = &refused["statusDetail"]["connections"];
    ensure!(connections["sources"] == json!([neighbour]), "{connections}");
    world.gateway.wait(&world.lab, &share, "three refused", NAMED, |s| {
        s["statusDetail"]["connections"]["notServed"] == 3
    })?;

    let begin = Instant::now();
    site.stop()?;
    ensure!(reason(&wait(&share, false)?) == "PeerDown");
    named("PeerDown", begin.elapsed());
    wait(&tunnel, false)?;
    world.end()
}
