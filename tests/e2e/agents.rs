//! An agent over its life: it remembers who it is, comes back, and is cut when it is barred.

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

/// For one try of what is repeated until it works.
const TRY: Duration = Duration::from_secs(2);

#[test]
fn an_agent_remembers_its_environment_and_comes_back_after_either_side_was_restarted() -> Result<()> {
    let (mut world, mut published) = World::loopback().publish(here)?;
    assert_eq!(ask(&world.outside, published.door, PATIENCE)?, "here");

    published.agent.process.kill()?;
    world.lab.until("the environment is OFFLINE", PATIENCE, || {
        Ok(world.gateway.list("environments")?.iter().any(|e| e["status"] == "OFFLINE").then_some(()))
    })?;
    // No code: it has its identity on disk.
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
fn a_barred_agent_is_cut_at_once() -> Result<()> {
    let (world, published) = World::loopback().publish(echo)?;
    let mut stream = connect(&world.outside, published.door, PATIENCE)?;
    exchange(&mut stream, b"before")?;

    let agents = world.gateway.list("agents")?;
    let id = text(agents.first().context("no agent")?, "id")?;
    world.gateway.api.delete(&world.gateway.at(&format!("agents/{id}")))?;
    let begin = Instant::now();
    let ended = stream.read(&mut [0; 1]);
    let took = begin.elapsed();
    ensure!(!matches!(ended, Ok(1..)), "a byte out of nothing");
    ensure!(took < AT_ONCE, "a barred agent's connection lived on for {took:?}");

    // Its certificate is valid still, and gets it nowhere.
    world.lab.until("the environment is OFFLINE", PATIENCE, || {
        Ok(world.gateway.list("environments")?.iter().all(|e| e["status"] == "OFFLINE").then_some(()))
    })?;
    let mut again = world.start_agent("agent", None)?;
    let status = again.process.wait(PATIENCE);
    let online = world.gateway.list("environments")?.iter().any(|e| e["status"] == "ACTIVE");
    ensure!(!online, "a barred agent is back: {status:?}\n{}", again.process.tail());
    world.end()
}
