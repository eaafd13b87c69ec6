//! An agent that serves at two locations, each with a gateway of its own.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{Process, roles::GatewayPlace};

use crate::harness::{
    PATIENCE, SITE_CIDR, World, door,
    targets::{ask, greeting},
    text,
};

const AWAY: &str = "away";

/// A tunnel at the second location.
fn tunnel_away(world: &World) -> Result<Value> {
    let peer = World::peer(1).to_string();
    let body = json!({"name": "site-away", "locationId": AWAY, "peerPublicIp": peer, "peerCidr": SITE_CIDR});
    // The server reads every second which locations have a gateway.
    let made = world.lab.until("the location has a gateway", PATIENCE, || {
        Ok(world.gateway.api.post(&world.gateway.at("ipsec-tunnels"), &body).ok())
    })?;
    world.gateway.deployed(&world.lab, "ipsec-tunnels", text(&made, "id")?)
}

fn says(world: &World, process: &Process, what: &str) -> Result<()> {
    let log = process.log().to_owned();
    world.lab.until(what, PATIENCE, || Ok(fs::read_to_string(&log)?.contains(what).then_some(())))
}

#[test]
fn an_agent_serves_at_each_location_and_outlives_the_gateway_that_it_enrolled_at() -> Result<()> {
    let Some((world, mut apart)) = World::loopback().start_apart()? else { return Ok(()) };
    // A server gives addresses for tunnels with IPsec: without it, they are this host's.
    world.outside.ip("route add local 100.64.0.0/10 dev lo")?;
    greeting(&world.private, world.target(7001), "here")?;
    let (mut agent, zid) = world.agent("agent")?;
    let near = world.tunnel(0)?;
    world.share("near", &near, &zid, world.target(7001), 9000)?;
    ensure!(ask(&world.outside, door(&near, 9000)?, PATIENCE)? == "here");

    let second = apart.start_another_gateway(&world, GatewayPlace { nth: 1, location: AWAY })?;
    let far = tunnel_away(&world)?;
    let log = fs::read_to_string(second.log())?;
    ensure!(!log.contains("agent connected"), "no share of the environment is there");
    // It becomes DEPLOYED since the agent, which was told of the second gateway, acknowledges it there.
    world.share("far", &far, &zid, world.target(7001), 9001)?;
    ensure!(ask(&world.outside, door(&far, 9001)?, PATIENCE)? == "here");
    ensure!(ask(&world.outside, door(&near, 9000)?, PATIENCE)? == "here", "the first one, too");
    says(&world, &second, "agent connected")?;

    apart.gateway.kill()?;
    for _ in 0..20 {
        ensure!(ask(&world.outside, door(&far, 9001)?, PATIENCE)? == "here");
    }
    world.share("another", &far, &zid, world.target(7001), 9002)?;
    ensure!(ask(&world.outside, door(&far, 9002)?, PATIENCE)? == "here");

    // Also after a start of the agent, which remembers the list: the gateway of its `--server` is away.
    agent.process.kill()?;
    let mut again = world.start_agent("agent", None)?;
    world.lab.until("an answer", PATIENCE, || {
        Ok(ask(&world.outside, door(&far, 9001)?, PATIENCE).ok().filter(|answer| answer == "here"))
    })?;
    again.process.alive()?;

    apart.start_gateway(&world)?;
    world.lab.until("the first gateway serves again", PATIENCE, || {
        Ok(ask(&world.outside, door(&near, 9000)?, PATIENCE).ok().filter(|answer| answer == "here"))
    })?;
    Ok(())
}
