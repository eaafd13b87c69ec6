//! A site whose device is behind a NAT router. The router may change the translated port.

use std::{
    io::{Read as _, Write as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use wicketgate_lab::named;

use crate::harness::{
    PATIENCE, World, door,
    home::PORTS,
    sas::{Sas, gateways_swanctl},
    targets::{ask, connect, echo, exchange, greeting},
    text,
};

/// The longest wait for data that was in flight when the port changed. The device checks its peer after 15 s of
/// silence, and TCP retransmits with growing pauses.
const BACK: Duration = Duration::from_secs(60);

#[test]
fn a_device_behind_nat_is_served_and_goes_on_when_its_port_changes() -> Result<()> {
    let mut world = World::with_sites(0).start()?;
    let home = world.add_home()?;
    greeting(&world.private, world.target(7001), "here")?;
    echo(&world.private, world.target(7002))?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    world.share("greeting", &tunnel, &zid, world.target(7001), 9000)?;
    world.share("echo", &tunnel, &zid, world.target(7002), 9001)?;
    let site = world.connected_site(0, &tunnel)?;
    assert_eq!(ask(&site.namespace, door(&tunnel, 9000)?, PATIENCE)?, "here");
    ensure!(within(port(&world)?, PORTS[0])?, "port {}", port(&world)?);
    let before = Sas::of(&site)?;

    let mut stream = connect(&site.namespace, door(&tunnel, 9001)?, PATIENCE)?;
    exchange(&mut stream, b"before")?;
    let up = world.gateway.api.get(&world.gateway.at(&format!("ipsec-tunnels/{}", text(&tunnel, "id")?)))?;
    home.redial()?;
    let begin = Instant::now();
    stream.set_read_timeout(Some(BACK))?;
    stream.write_all(b"after")?;
    let path = format!("ipsec-tunnels/{}", text(&tunnel, "id")?);
    let told = world.gateway.wait(&world.lab, &path, "doubted, or at another port", BACK, |t| {
        t["connection"]["warnings"][0].is_object() || t["connection"]["peer"] != up["connection"]["peer"]
    })?;
    named("Traffic stops for up to half a minute and resumes.", begin.elapsed());
    eprintln!("{}", told["connection"]);
    let mut back = [0; 5];
    stream.read_exact(&mut back).context("the connection did not survive the change of the port")?;
    eprintln!("the same connection resumed {:?} after its port changed", begin.elapsed());
    assert_eq!(&back, b"after");
    ensure!(within(port(&world)?, PORTS[1])?, "port {}", port(&world)?);
    // No client had to reconnect. ESP in user space cannot change its address and gets a new CHILD SA instead.
    assert_eq!(Sas::of(&site)?.ike, before.ike);
    assert_eq!(ask(&site.namespace, door(&tunnel, 9000)?, PATIENCE)?, "here");
    world.end()
}

/// The peer's port in the gateway's daemon.
fn port(world: &World) -> Result<u16> {
    let said = gateways_swanctl(world, 0, &["--list-sas"])?;
    let remote = said.lines().find_map(|l| l.trim().strip_prefix("remote ")).context("no SA")?;
    let port = remote.split_once('[').and_then(|(_, rest)| rest.split_once(']')).context("no port")?;
    Ok(port.0.parse()?)
}

fn within(port: u16, range: &str) -> Result<bool> {
    let (first, last) = range.split_once('-').context("not a range")?;
    Ok((first.parse()?..=last.parse()?).contains(&port))
}
