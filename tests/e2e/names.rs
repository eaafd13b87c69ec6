//! Names of targets and of the server: with an address that swallows packets, and with a name server that does.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use wicketgate_lab::{Agent, End, Namespace, named};

use crate::harness::{
    PATIENCE, World, agent_executable, door,
    targets::{ask, connect, echo, exchange, here},
    text,
};

/// The longest time that a user waits for a connection although one of the target's addresses is dead.
const USERS_PATIENCE: Duration = Duration::from_secs(2);
/// Clients that keep trying a share whose name is not answered: more than the runtime has threads for blocking calls.
const CLIENTS: usize = 600;
/// Threads of an agent: those of the runtime, and two for each name that hangs.
const MOST_THREADS: usize = 100;

/// Makes a network in which packets vanish, and a program that starts the agent with its own hosts file and name server.
fn agent_with_names(world: &World, hosts: &str, server: &str) -> Result<PathBuf> {
    let void = world.lab.namespace("void")?;
    Namespace::link(End(&world.outside, "void", "10.99.4.1/24"), End(&void, "void", ""))?;
    // Nobody has this link-layer address.
    world.outside.ip("addr add 2001:db8::1/64 dev void nodad\n\
         neigh add 2001:db8::dead lladdr 02:00:00:00:00:01 dev void\n\
         neigh add 10.99.4.53 lladdr 02:00:00:00:00:01 dev void")?;
    let dir = world.lab.dir("names")?;
    fs::write(dir.join("hosts"), format!("127.0.0.1 localhost\n{hosts}"))?;
    fs::write(dir.join("resolv.conf"), "nameserver 10.99.4.53\n")?;
    let lines = format!(
        "# start --server URL …\n\
         shift 3\n\
         exec unshare -m sh -c 'mount --bind {dir}/hosts /etc/hosts && mount --bind {dir}/resolv.conf /etc/resolv.conf && \
         exec {agent} start --server {server} \"$@\"' sh \"$@\"",
        dir = dir.display(),
        agent = agent_executable()?.display(),
    );
    world.script("agent", &lines)
}

fn threads(agent: &Agent) -> Result<usize> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.process.pid()))?;
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).context("no threads")?;
    Ok(threads.trim().parse()?)
}

#[test]
fn a_silent_address_of_a_target_or_of_the_server_is_passed_over() -> Result<()> {
    let world = World::loopback().start()?;
    let hosts = "2001:db8::dead dual.test gateway.test\n127.0.0.1 dual.test gateway.test\n";
    let executable = agent_with_names(&world, hosts, "https://gateway.test:7443")?;
    here(&world.private, world.target(7001))?;
    let (_agent, zid) = world.agent_of("agent", &executable)?;
    let tunnel = world.tunnel(0)?;
    world.gateway.share(&world.lab, "dual", &tunnel, &zid, "dual.test:7001", 9000)?;
    for _ in 0..3 {
        ensure!(ask(&world.outside, door(&tunnel, 9000)?, USERS_PATIENCE)? == "here");
    }
    world.end()
}

#[test]
fn a_dead_name_server_takes_only_the_names_that_need_it() -> Result<()> {
    let world = World::loopback().start()?;
    let executable = agent_with_names(&world, "127.0.0.1 app.test\n", "https://127.0.0.1:7443")?;
    echo(&world.private, world.target(7001))?;
    let (agent, zid) = world.agent_of("agent", &executable)?;
    let tunnel = world.tunnel(0)?;
    world.gateway.share(&world.lab, "hosts", &tunnel, &zid, "app.test:7001", 9000)?;
    let dead = world.gateway.share(&world.lab, "dead", &tunnel, &zid, "db.branch.test:7001", 9001)?;
    let begin = Instant::now();
    let clients = (0..CLIENTS)
        .map(|_| connect(&world.outside, door(&tunnel, 9001)?, PATIENCE))
        .collect::<Result<Vec<_>>>()?;
    for _ in 0..3 {
        let mut client = connect(&world.outside, door(&tunnel, 9000)?, PATIENCE)?;
        client.set_read_timeout(Some(USERS_PATIENCE))?;
        exchange(&mut client, b"while the name server is dead").with_context(|| agent.process.tail())?;
    }
    let threads = threads(&agent)?;
    ensure!(threads < MOST_THREADS, "{threads} threads");
    let path = format!("ipsec-shares/{}", text(&dead, "id")?);
    world.gateway.wait(&world.lab, &path, "told", PATIENCE, |share| {
        let told = &share["statusDetail"];
        told["reason"] == "TargetUnreachable"
            && told["message"].to_string().contains("no name server answers")
    })?;
    named("TargetUnreachable, \"no name server answers\"", begin.elapsed());
    drop(clients);
    world.end()
}
