//! Hosts behind a share that vanish while streams are in use: the client learns it, and does not wait for TCP to give up.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};

use wicketgate_lab::named;

use crate::harness::{
    PATIENCE, World,
    targets::{connect, echo, exchange},
    text,
};

/// The longest time until a stream of a vanished agent is reset: 15 s until its control connection is silent, 30 s for
/// its return, and room for a loaded machine.
const AGENT_LOST: Duration = Duration::from_secs(60);
/// The longest time until an upload to a vanished target is reset: a minute without an acknowledgement, and looks every
/// 10 s.
const TARGET_LOST: Duration = Duration::from_secs(90);

/// The longest time from an acknowledgement until the share is well: a look each second, and a probe.
const BACK: Duration = Duration::from_secs(8);
static UPLOAD: [u8; 100_000] = [7; 100_000];

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
    world.cut("private")?;
    let begin = Instant::now();
    client.write_all(b"a query that is never answered")?;
    let share = format!("ipsec-shares/{}", text(&published.share, "id")?);
    world
        .gateway
        .wait(&world.lab, &share, "told", PATIENCE, |s| s["statusDetail"]["reason"] == "AgentSilent")?;
    named("A waiting query is reset after 45 to 60 s.", begin.elapsed());
    reset_after(&mut client, AGENT_LOST)?;
    world.restore()?;
    drop(client);
    world.end()
}

#[test]
fn an_upload_to_a_vanished_target_is_told_and_goes_on_or_is_reset() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let (namespace, target) = world.add_private("target", 7001)?;
    echo(&namespace, target)?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    let share = world.share("echo", &tunnel, &zid, target, 9000)?;
    let site = world.connected_site(0, &tunnel)?;
    let mut client = connect(&site.namespace, crate::harness::door(&tunnel, 9000)?, PATIENCE)?;
    exchange(&mut client, b"before")?;
    let share = format!("ipsec-shares/{}", text(&share, "id")?);
    let is_told = |s: &serde_json::Value| s["statusDetail"]["reason"] == "TargetUnreachable";
    world.cut("target")?;
    let begin = Instant::now();
    client.write_all(&UPLOAD)?;
    world.gateway.wait(&world.lab, &share, "told", PATIENCE, is_told)?;
    named("An upload stops, and is reset after a minute.", begin.elapsed());
    world.restore()?;
    client.set_read_timeout(Some(PATIENCE))?;
    client.read_exact(&mut [0; UPLOAD.len()])?;
    let is_well = |s: &serde_json::Value| s["statusDetail"].is_null();
    world.gateway.wait(&world.lab, &share, "well", BACK, is_well)?;

    world.cut("target")?;
    client.write_all(&UPLOAD)?;
    let took = thread::scope(|scope| -> Result<_> {
        let reset = scope.spawn(|| reset_after(&mut client, TARGET_LOST));
        world.gateway.wait(&world.lab, &share, "told again", PATIENCE, is_told)?;
        reset.join().expect("no panic")
    })?;
    ensure!(took > PATIENCE, "reset after {took:?}: something else than the lost target ended it");
    drop(client);
    world.end()
}
