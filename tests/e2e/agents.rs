//! An agent keeps its identity, reconnects, and is disconnected when it is barred.

use std::{
    io::Read as _,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::harness::{
    AT_ONCE, PATIENCE, World,
    targets::{ask, connect, echo, exchange, here},
    text,
};

/// The bound of one attempt; attempts repeat until one succeeds.
const TRY: Duration = Duration::from_secs(2);

#[test]
fn an_agent_keeps_its_environment_and_reconnects_after_either_side_restarts() -> Result<()> {
    let (mut world, mut published) = World::loopback().publish(here)?;
    assert_eq!(ask(&world.outside, published.door, PATIENCE)?, "here");

    published.agent.process.kill()?;
    world.lab.until("the environment is OFFLINE", PATIENCE, || {
        Ok(world.gateway.list("environments")?.iter().any(|e| e["status"] == "OFFLINE").then_some(()))
    })?;
    // The agent needs no code: its identity is on disk.
    published.agent = world.start_agent("agent", None)?;
    let served = |world: &World| {
        world.lab.until("the share is served again", PATIENCE, || {
            Ok((ask(&world.outside, published.door, TRY)? == "here").then_some(()))
        })
    };
    served(&world).map_err(|e| e.context(published.agent.process.tail()))?;

    world.gateway.process.kill()?;
    world.restart()?;
    served(&world).map_err(|e| e.context(published.agent.process.tail()))?;
    published.agent.process.alive()?;

    let environments = world.gateway.list("environments")?;
    assert_eq!(environments.len(), 1, "{environments:?}");
    assert_eq!(environments[0]["zId"], published.zid.as_str());
    world.end()
}

#[test]
fn a_barred_agent_is_disconnected_at_once() -> Result<()> {
    let (world, published) = World::loopback().publish(echo)?;
    let mut stream = connect(&world.outside, published.door, PATIENCE)?;
    exchange(&mut stream, b"before")?;

    let agents = world.gateway.list("agents")?;
    let id = text(agents.first().context("no agent")?, "id")?;
    world.gateway.api.delete(&world.gateway.at(&format!("agents/{id}")))?;
    let begin = Instant::now();
    let ended = stream.read(&mut [0; 1]);
    let took = begin.elapsed();
    ensure!(!matches!(ended, Ok(1..)), "received a byte that was not sent");
    ensure!(took < AT_ONCE, "a barred agent's connection ended only after {took:?}");

    // Its certificate is still valid, but the gateway rejects it.
    world.lab.until("the environment is OFFLINE", PATIENCE, || {
        Ok(world.gateway.list("environments")?.iter().all(|e| e["status"] == "OFFLINE").then_some(()))
    })?;
    let mut again = world.start_agent("agent", None)?;
    let status = again.process.wait(PATIENCE);
    let online = world.gateway.list("environments")?.iter().any(|e| e["status"] == "ACTIVE");
    ensure!(!online, "a barred agent reconnected: {status:?}\n{}", again.process.tail());
    world.end()
}
