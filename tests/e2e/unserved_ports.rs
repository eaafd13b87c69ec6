//! Hosts of a site that use ports that no share has.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::Namespace;

use crate::harness::{
    PATIENCE, SITE_CLIENT, World, door,
    targets::{ask, here},
    text,
};

/// From the last refused connection to its entry. The gateway looks every four seconds; the rest is for a busy machine.
const NAMED: Duration = Duration::from_secs(8);

/// The tunnel's warning that ports have no share.
fn warning(tunnel: &Value) -> Option<&Value> {
    let mut all = tunnel["connection"]["warnings"].as_array().into_iter().flatten();
    all.find(|warning| warning["reason"] == "PortWithoutShare")
}

/// The ports of the warning, each with its protocol and its number of attempts.
fn told(tunnel: &Value) -> Vec<(&str, u64, u64)> {
    let ports = warning(tunnel).and_then(|warning| warning["ports"].as_array()).into_iter().flatten();
    ports
        .filter_map(|p| Some((p["protocol"].as_str()?, p["port"].as_u64()?, p["attempts"].as_u64()?)))
        .collect()
}

fn is_refused(site: &Namespace, tunnel: &Value, port: u16) -> Result<bool> {
    let tried = site.connect(door(tunnel, port)?, PATIENCE);
    let error = tried.err().and_then(|error| error.downcast::<std::io::Error>().ok());
    Ok(error.is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused))
}

#[test]
fn a_port_that_no_share_has_is_named_with_its_clients_until_a_share_has_it() -> Result<()> {
    let (world, mut published) = World::with_sites(1).publish(here)?;
    let tunnel = &published.tunnel;
    let path = format!("ipsec-tunnels/{}", text(tunnel, "id")?);
    let site = world.connected_site(0, tunnel)?;
    assert_eq!(ask(&site.namespace, published.door, PATIENCE)?, "here");

    let begin = Instant::now();
    for _ in 0..3 {
        ensure!(is_refused(&site.namespace, tunnel, 8443)?, "the port is open");
    }
    let is_told = |t: &Value| told(t) == [("tcp", 8443, 3)];
    let seen = world.gateway.wait(&world.lab, &path, "named", NAMED, is_told)?;
    wicketgate_lab::named("PortWithoutShare", begin.elapsed());
    wicketgate_lab::named("Connection refused at once; or UDP without an answer.", begin.elapsed());
    let named = warning(&seen).context("no warning")?;
    let message = "hosts of the site connect to port 8443, where no share is: create a share, or correct the hosts; the \
                   shares of this tunnel have port 9000";
    assert_eq!(named["message"], message);
    assert_eq!(named["ports"][0]["sources"], json!([SITE_CLIENT]));
    ensure!(seen["ready"] == true, "{seen}");

    let udp = site.namespace.enter(|| UdpSocket::bind((SITE_CLIENT, 0)))??;
    udp.send_to(b"?", door(tunnel, 9000)?)?;
    let with_udp = |t: &Value| told(t) == [("tcp", 8443, 3), ("udp", 9000, 1)];
    world.gateway.wait(&world.lab, &path, "named with UDP", NAMED, with_udp)?;

    let share = world.share("second", tunnel, &published.zid, world.target(7001), 8443)?;
    assert_eq!(ask(&site.namespace, door(tunnel, 8443)?, PATIENCE)?, "here");
    let is_gone = |t: &Value| told(t) == [("udp", 9000, 1)];
    world.gateway.wait(&world.lab, &path, "no longer named", NAMED, is_gone)?;

    // A share that is closed on purpose says so itself.
    world.patch(&share, &json!({"closeWhenUnserved": true}))?;
    published.agent.process.kill()?;
    let closed = || Ok(is_refused(&site.namespace, tunnel, 8443)?.then_some(()));
    world.lab.until("the port is closed", PATIENCE, closed)?;
    ensure!(is_refused(&site.namespace, tunnel, 8444)?, "the port is open");
    let is_other = |t: &Value| told(t) == [("tcp", 8444, 1), ("udp", 9000, 1)];
    world.gateway.wait(&world.lab, &path, "named without the closed port", NAMED, is_other)?;
    world.end()
}
