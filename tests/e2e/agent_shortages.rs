//! An agent that runs out of descriptors or source ports says that it is the agent's shortage, and not the target's fault.

use std::{io::Write as _, time::Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::harness::{
    PATIENCE, World, agent_executable, door,
    targets::{connect_or_reset, echo, fill},
    text,
};

/// More connections than the usual soft limit of the agent permits, at two descriptors each.
const MANY: usize = 60;

/// Publishes an echo through an agent with a soft and a hard limit of open files.
fn publish(world: &World, limits: &str) -> Result<(wicketgate_lab::Agent, Value, Value)> {
    let agent = agent_executable()?;
    let lines = format!("exec prlimit --nofile={limits} {} \"$@\"", agent.display());
    echo(&world.private, world.target(7001))?;
    let (agent, zid) = world.agent_of("agent", &world.script("agent", &lines)?)?;
    let tunnel = world.tunnel(0)?;
    let share = world.share("echo", &tunnel, &zid, world.target(7001), 9000)?;
    Ok((agent, tunnel, share))
}

/// Waits until the share's status names the agent's shortage, and checks that `/check` does, too.
fn named(world: &World, share: &Value, tunnel: &Value, limit: &str) -> Result<()> {
    let path = format!("ipsec-shares/{}", text(share, "id")?);
    // The status needs one refused connection; clients go on trying.
    let begin = Instant::now();
    let named = world.lab.until("the shortage is named", PATIENCE, || {
        if let Some(mut client) = connect_or_reset(&world.outside, door(tunnel, 9000)?, PATIENCE)? {
            let _ = client.write_all(b"once more");
        }
        let share = world.gateway.api.get(&world.gateway.at(&path))?;
        Ok((share["statusDetail"]["reason"] == "AgentExhausted").then_some(share))
    })?;
    wicketgate_lab::named("AgentExhausted", begin.elapsed());
    let message = text(&named["statusDetail"], "message")?;
    ensure!(message.contains(limit), "{named}");
    let check =
        world.gateway.api.post(&world.gateway.at(&format!("{path}/check")), &serde_json::json!({}))?;
    let agent = &check["hops"][3];
    ensure!(agent["hop"] == "agent" && agent["reason"] == "AgentExhausted", "{check}");
    Ok(())
}

#[test]
fn the_soft_limit_of_open_files_does_not_limit_connections() -> Result<()> {
    let world = World::loopback().start()?;
    let (agent, tunnel, _) = publish(&world, "64:4096")?;
    let open = fill(&world.outside, door(&tunnel, 9000)?, MANY)?.len();
    ensure!(open == MANY, "{open} connections\n{}", agent.process.tail());
    world.end()
}

#[test]
fn an_agent_without_free_descriptors_says_so() -> Result<()> {
    let world = World::loopback().start()?;
    let (agent, tunnel, share) = publish(&world, "96:96")?;
    ensure!(agent.process.said().contains("the limit of open files is low"), "{}", agent.process.tail());
    let open = fill(&world.outside, door(&tunnel, 9000)?, MANY)?;
    ensure!(open.len() < MANY);
    named(&world, &share, &tunnel, "LimitNOFILE")?;
    drop(open);
    let path = format!("ipsec-shares/{}", text(&share, "id")?);
    world.gateway.wait(&world.lab, &path, "well", PATIENCE, |s| s["statusDetail"].is_null())?;
    world.end()
}

#[test]
fn an_agent_without_free_source_ports_says_so() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, tunnel, share) = publish(&world, "1024:1024")?;
    world.private.sysctl("net/ipv4/ip_local_port_range", "40000 40063")?;
    let mut taken = Vec::new();
    while let Ok(client) = world.private.connect(world.target(7001), PATIENCE) {
        taken.push(client);
    }
    named(&world, &share, &tunnel, "ip_local_port_range")?;
    drop(taken);
    world.end()
}
