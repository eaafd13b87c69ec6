//! An abnormal end never looks like an orderly end, whichever process dies.

use std::{io::ErrorKind, time::Instant};

use anyhow::{Context, Result, ensure};

use crate::harness::{
    PATIENCE, World,
    targets::{connect, exchange, is_reset, witness},
};

#[test]
fn a_killed_agent_or_gateway_resets_connections_at_both_ends() -> Result<()> {
    let (mut world, mut published) = World::loopback().publish(witness)?;
    let target_was_reset = || -> Result<()> {
        let end = published.target.recv_timeout(PATIENCE).context("the target's connection did not end")?;
        ensure!(end == Some(ErrorKind::ConnectionReset), "the target's connection ended with {end:?}");
        Ok(())
    };

    let mut stream = connect(&world.outside, published.door, PATIENCE)?;
    exchange(&mut stream, b"half of it")?;
    published.agent.process.kill()?;
    let begin = Instant::now();
    is_reset(stream)?;
    let is_told = || Ok(world.gateway.process.said().contains("agent disconnected").then_some(()));
    world.lab.until("the log tells that the agent is gone", PATIENCE, is_told)?;
    wicketgate_lab::named("All connections are reset at once.", begin.elapsed());
    target_was_reset()?;

    published.agent = world.start_agent("agent", None)?;
    let mut stream = world.lab.until("the share is served again", PATIENCE, || {
        let mut stream = connect(&world.outside, published.door, PATIENCE)?;
        Ok(exchange(&mut stream, b"half of it").is_ok().then_some(stream))
    })?;
    exchange(&mut stream, b"another half")?;
    world.gateway.process.kill()?;
    is_reset(stream)?;
    target_was_reset()?;
    published.agent.process.alive()?;
    world.restart()?;
    world.end()
}

#[test]
fn connections_on_both_sides_have_keepalive_timers() -> Result<()> {
    let (world, published) = World::loopback().publish(witness)?;
    let mut stream = connect(&world.outside, published.door, PATIENCE)?;
    exchange(&mut stream, b"here")?;
    // The gateway's end of the client's connection, and the agent's end of the target's connection.
    for filter in ["( sport = :9000 )", "( dport = :7001 )"] {
        world.lab.until("the connection has a keepalive timer", PATIENCE, || {
            let out = world.outside.command("ss").args(["-tnoH", "state", "established", filter]).output()?;
            let said = String::from_utf8(out.stdout)?;
            ensure!(said.contains("timer:(keepalive,"), "{filter}: {said}");
            Ok(Some(()))
        })?;
    }
    exchange(&mut stream, b"still here")?;
    world.end()
}
