//! The API reports the cause when something outside the product fails.

use std::{io::Read as _, time::Instant};

use anyhow::{Context, Result, ensure};

use crate::harness::{AT_ONCE, PATIENCE, World, door, targets::connect, text};

#[test]
fn a_target_that_refuses_is_reported_and_its_client_is_closed_at_once() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    // No service listens at this port.
    let share = world.share("unserved", &tunnel, &zid, world.target(7009), 9000)?;

    let path = format!("ipsec-shares/{}", text(&share, "id")?);
    let begin = Instant::now();
    let mut stream = connect(&world.outside, door(&tunnel, 9000)?, PATIENCE)?;
    let ended = stream.read(&mut [0; 1]);
    let took = begin.elapsed();
    ensure!(!matches!(ended, Ok(1..)), "received a byte from a target that does not exist");
    ensure!(took < AT_ONCE, "closed only after {took:?}");

    let share = world.gateway.wait(&world.lab, &path, "DEPLOYED, target unreachable", PATIENCE, |s| {
        s["status"] == "DEPLOYED" && s["statusDetail"]["reason"] == "TargetUnreachable"
    })?;
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
    ensure!(!site.try_connect()?, "a wrong key was accepted");

    let path = format!("ipsec-tunnels/{}", text(&tunnel, "id")?);
    let seen = world.gateway.wait(&world.lab, &path, "PreSharedKeysDiffer", PATIENCE, |t| {
        t["connection"]["lastError"]["reason"] == "PreSharedKeysDiffer"
    })?;
    // A peer that cannot connect is not an error of the tunnel.
    assert_eq!(seen["status"], "DEPLOYED");
    ensure!(seen["connection"]["state"] != "UP");
    world.end()
}
