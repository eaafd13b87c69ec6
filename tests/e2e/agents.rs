//! An agent keeps its identity, reconnects, and is disconnected when it is barred.

use std::{
    io::Read as _,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use wicketgate_lab::Agent;

use crate::harness::{
    AT_ONCE, PATIENCE, World, agent_executable,
    service_manager::ServiceManager,
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
fn a_copied_state_directory_is_named_and_the_running_agent_goes_on() -> Result<()> {
    let (world, published) = World::loopback().publish(here)?;
    let copied =
        Command::new("cp").arg("-a").arg(&published.agent.state).arg(world.lab.path("copy")).status()?;
    ensure!(copied.success(), "cp: {copied}");
    let begin = Instant::now();
    let mut copy = world.start_agent("copy", None)?;
    let path = format!("ipsec-shares/{}", text(&published.share, "id")?);
    let named = world.gateway.wait(&world.lab, &path, "named", PATIENCE, |share| {
        share["statusDetail"]["reason"] == "AgentDuplicated"
    })?;
    wicketgate_lab::named("AgentDuplicated", begin.elapsed());
    ensure!(named["status"] == "DEPLOYED" && named["ready"] == true, "{named}");
    for _ in 0..20 {
        ensure!(ask(&world.outside, published.door, PATIENCE)? == "here");
    }
    let said = world.gateway.process.said();
    ensure!(
        said.matches("agents::control: agent connected").count() == 1,
        "{}",
        world.gateway.process.tail()
    );
    ensure!(said.matches("two agents have the same identity").count() == 1);
    ensure!(copy.process.said().contains("with --take-over"), "{}", copy.process.tail());
    let events = world.events("ipsec-share", text(&published.share, "id")?)?;
    ensure!(events.iter().any(|e| e["statusDetail"]["reason"] == "AgentDuplicated"), "{events:?}");
    copy.process.kill()?;
    world.gateway.wait(&world.lab, &path, "well", 2 * PATIENCE, |share| share["statusDetail"].is_null())?;
    world.end()
}

#[test]
fn a_barred_agent_is_disconnected_at_once() -> Result<()> {
    let (world, mut published) = World::loopback().publish(echo)?;
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
    // It is told, and ends; so does one that is started again.
    let is_told = |agent: &mut Agent| {
        let status = agent.process.wait(PATIENCE)?;
        let said = agent.process.said();
        let is_told = said.contains("this agent was removed from environment ")
            && said.contains("start it with a new code");
        ensure!(status.code() == Some(4) && is_told, "{status}: {}", agent.process.tail());
        Ok(())
    };
    is_told(&mut published.agent)?;
    let mut again = world.start_agent("agent", None)?;
    is_told(&mut again)?;
    let online = world.gateway.list("environments")?.iter().any(|e| e["status"] == "ACTIVE");
    ensure!(!online, "a barred agent reconnected\n{}", again.process.tail());
    world.end()
}

#[test]
fn a_new_code_replaces_an_identity_only_once_it_is_refused_and_the_service_manager_is_told() -> Result<()> {
    let mut world = World::loopback().start()?;
    let socket = world.lab.path("notify");
    let manager = ServiceManager::at(&socket)?;
    let lines = format!("NOTIFY_SOCKET={} exec {} \"$@\"", socket.display(), agent_executable()?.display());
    let program = world.script("notifying", &lines)?;
    let start = |world: &World, code: Option<&str>| {
        Agent::start(&world.lab, &world.agent_options("agent", &program), code)
    };
    let first = world.gateway.enrollment_code()?;
    let mut agent = start(&world, Some(&first))?;
    let told = manager.until("STATUS=connected to https://")?;
    ensure!(told.contains("READY=1"), "{told}");
    // While the gateway is away, it does not say that it serves.
    world.gateway.process.kill()?;
    manager.until("STATUS=not connected to https://")?;
    world.restart()?;
    manager.until("STATUS=connected to https://")?;
    agent.process.kill()?;

    // An identity that works is kept, and is then newer than the code that it makes superfluous.
    let second = world.gateway.enrollment_code()?;
    let identity = agent.state.join("identity.json");
    let before = std::fs::metadata(&identity)?.modified()?;
    let mut agent = start(&world, Some(&second))?;
    manager.until("STATUS=connected to https://")?;
    let agents = world.gateway.list("agents")?;
    ensure!(agents.len() == 1, "{agents:?}");
    ensure!(std::fs::metadata(&identity)?.modified()? > before, "{}", agent.process.tail());

    let id = text(&agents[0], "id")?;
    world.gateway.api.delete(&world.gateway.at(&format!("agents/{id}")))?;
    let refused = format!("STATUS=refused by https://{}: this agent was removed", world.agents_dial());
    let told = manager.until(&refused)?;
    ensure!(told.contains(&agent.state.display().to_string()), "{told}");
    ensure!(agent.process.wait(PATIENCE)?.code() == Some(4));
    // The code that the identity was made with is no new one; it is refused as the identity is.
    let mut agent = start(&world, Some(&first))?;
    let told = manager.until(&refused)?;
    ensure!(told.contains(", and its enrolment code is used up. "), "{told}");
    agent.process.wait(PATIENCE)?;

    let agent = start(&world, Some(&second))?;
    manager.until("STATUS=connected to https://")?;
    let again = world.gateway.list("agents")?;
    ensure!(again.iter().any(|agent| agent["id"] != id), "{again:?}");
    drop(agent);
    world.end()
}
