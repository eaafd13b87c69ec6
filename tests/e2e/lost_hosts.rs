//! Hosts behind a share that vanish while streams are in use: the client learns it, and does not wait for TCP to give up.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::harness::{
    PATIENCE, World,
    targets::{connect, echo, exchange},
};

/// The longest time until a stream of a vanished agent is reset: 15 s until its control connection is silent, 30 s for
/// its return, and room for a loaded machine.
const AGENT_LOST: Duration = Duration::from_secs(60);
/// The longest time until an upload to a vanished target is reset: a minute without an acknowledgement, and looks every
/// 10 s.
const TARGET_LOST: Duration = Duration::from_secs(90);

/// Drops all packets between `interface` of the router and the rest.
fn cut(world: &World, interface: &str) -> Result<()> {
    world.internet.as_ref().context("no internet")?.nft(&format!(
        "table ip cut {{
           chain forward {{
             type filter hook forward priority -10; policy accept;
             iifname {interface} drop
             oifname {interface} drop
           }}
         }}"
    ))
}

/// Waits until the connection is reset, and returns how long that took.
fn reset_after(client: &mut TcpStream, within: Duration) -> Result<Duration> {
    let began = Instant::now();
    client.set_read_timeout(Some(within))?;
    match client.read(&mut [0; 1]) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(began.elapsed()),
        other => bail!("not reset within {within:?}: {other:?}"),
    }
}

#[test]
fn a_waiting_query_through_a_vanished_agent_is_reset() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(echo)?;
    let site = world.connected_site(0, &published.tunnel)?;
    let mut client = connect(&site.namespace, published.door, PATIENCE)?;
    exchange(&mut client, b"before")?;
    cut(&world, "private")?;
    client.write_all(b"a query that is never answered")?;
    reset_after(&mut client, AGENT_LOST)?;
    world.internet.as_ref().context("no internet")?.nft("delete table ip cut")?;
    drop(client);
    world.end()
}

#[test]
fn an_upload_to_a_vanished_target_is_reset() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let (namespace, target) = world.add_private("target", 7001)?;
    echo(&namespace, target)?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    world.share("echo", &tunnel, &zid, target, 9000)?;
    let site = world.connected_site(0, &tunnel)?;
    let mut client = connect(&site.namespace, crate::harness::door(&tunnel, 9000)?, PATIENCE)?;
    exchange(&mut client, b"before")?;
    cut(&world, "target")?;
    client.write_all(&[7; 100_000])?;
    let took = reset_after(&mut client, TARGET_LOST)?;
    ensure!(took > PATIENCE, "reset after {took:?}: something else than the lost target ended it");
    drop(client);
    world.end()
}
