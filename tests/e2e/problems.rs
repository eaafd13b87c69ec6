//! What a user sees when something around the product is wrong: it says which thing.

use std::{io::Read as _, time::Instant};

use anyhow::{Context, Result, ensure};

use crate::harness::{AT_ONCE, PATIENCE, World, door, targets::connect, text};

#[test]
fn a_target_that_refuses_is_named_and_its_client_is_closed_at_once() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    // Nobody listens there.
    let share = world.share("nobody", &tunnel, &zid, world.target(7009), 9000)?;

    let path = format!("ipsec-shares/{}", text(&share, "id")?);
    let begin = Instant::now();
    let mut stream = connect(&world.outside, door(&tunnel, 9000)?, PATIENCE)?;
    let ended = stream.read(&mut [0; 1]);
    let took = begin.elapsed();
    ensure!(!matches!(ended, Ok(1..)), "a byte from a target that is not there");
    ensure!(took < AT_ONCE, "closed after {took:?} only");

    let share = world.gateway.wait(&world.lab, &path, "DEPLOYED, target unreachable", PATIENCE, |s| {
        s["status"] == "DEPLOYED" && s["statusDetail"]["reason"] == "TargetUnreachable"
    })?;
    ensure!(!text(&share["statusDetail"], "message")?.is_empty());
    world.end()
}

#[test]
fn a_wrong_key_at_the_site_is_named_as_such() -> Result<()> {
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
    // A peer that can't come up is no fault of the tunnel.
    assert_eq!(seen["status"], "DEPLOYED");
    ensure!(seen["connection"]["state"] != "UP");
    world.end()
}
