//! An agent whose host has a wrong clock, by which certificates are not valid.

use std::{process::Stdio, time::Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use wicketgate_lab::named;

use crate::harness::{
    PATIENCE, World, agent_executable, door,
    targets::{ask, greeting},
};

/// Of the agents' clocks, in seconds.
const A_DAY: i64 = 86_400;

/// A program that starts the agent with a clock that is off by this many seconds.
fn agent_at(world: &World, name: &str, seconds: i64) -> Result<std::path::PathBuf> {
    // Only the time of day is wrong.
    let lines = format!(
        "export FAKETIME={seconds:+} FAKETIME_DISABLE_SHM=1 FAKETIME_DONT_FAKE_MONOTONIC=1\n\
         export LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1)\n\
         exec {} \"$@\"",
        agent_executable()?.display()
    );
    world.script(name, &lines)
}

#[test]
fn an_agent_whose_clock_is_before_every_certificate_says_so_when_it_enrols() -> Result<()> {
    let world = World::loopback().start()?;
    // A host without a battery begins in 1970; certificates are valid since 2020.
    let since = i64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_secs())?;
    let executable = agent_at(&world, "behind", A_DAY - since)?;
    let made = world.gateway.enrollment_code()?;
    let mut command = world.private.command(&executable.display().to_string());
    command.args(["start", "--server", &format!("https://{}", world.agents_dial())]);
    command.args(["--state-dir".as_ref(), world.lab.path("behind-state").as_os_str()]);
    command.env("WICKETGATE_ENROLLMENT_TOKEN", made).stdin(Stdio::null());
    // It ends by itself: with this clock, no later try can succeed.
    let out = command.output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(!out.status.success(), "{said}");
    ensure!(said.contains("at least 18261 days behind the server's"), "{said}");
    ensure!(said.contains("timedatectl"), "{said}");
    world.end()
}

#[test]
fn an_agent_whose_clock_is_behind_serves_and_is_named_with_the_difference() -> Result<()> {
    serves_and_is_named(-A_DAY, "24 h behind the server's")
}

#[test]
fn an_agent_whose_clock_is_ahead_serves_and_is_named_with_the_difference() -> Result<()> {
    serves_and_is_named(A_DAY, "24 h ahead of the server's")
}

/// With an agent whose clock is ahead by so many seconds, or behind.
fn serves_and_is_named(seconds: i64, words: &str) -> Result<()> {
    let world = World::loopback().start()?;
    let begin = Instant::now();
    let (agent, _zid) = world.agent_of("agent", &agent_at(&world, "agent.sh", seconds)?)?;
    let seen = world.lab.until("the clock is told", PATIENCE, || {
        let agents = world.gateway.list("agents")?;
        Ok(agents.into_iter().find(|agent| agent["clockSecondsAhead"].is_number()))
    })?;
    named("none; clockSecondsAhead of the agent, and its log: \"the clock of this host\"", begin.elapsed());
    let ahead = seen["clockSecondsAhead"].as_i64().context("no number")?;
    ensure!((seconds - 5..seconds + 5).contains(&ahead), "{seen}");
    ensure!(seen["status"] == json!("CONNECTED"), "{seen}");
    let said = agent.process.said();
    ensure!(said.contains(words) && said.contains("timedatectl"), "{said}");
    world.end()
}

#[test]
fn a_gateway_that_started_two_days_ahead_is_joined_again_when_its_clock_is_set_right() -> Result<()> {
    let mut world = World::loopback().start()?;
    greeting(&world.private, world.target(7001), "here")?;
    let (_before, zid) = world.agent("before")?;
    let clock = world.lab.path("clock");
    std::fs::write(&clock, "+2d\n")?;
    // Only the time of day is wrong, and read from the file each time.
    let lines = format!(
        "export FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 FAKETIME_DISABLE_SHM=1 FAKETIME_DONT_FAKE_MONOTONIC=1\n\
         export LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1)",
        clock.display()
    );
    ensure!(world.gateway.process.stop(PATIENCE)?.success());
    world.restart_after(&lines)?;
    // It enrols while the gateway's clock is wrong.
    let (_meanwhile, other) = world.agent("meanwhile")?;
    let right = world.lab.path("clock.right");
    std::fs::write(&right, "+0\n")?;
    std::fs::rename(&right, &clock)?;
    let tunnel = world.tunnel(0)?;
    for (port, zid) in [(9000, &zid), (9001, &other)] {
        world.share(&format!("greeting-{port}"), &tunnel, zid, world.target(7001), port)?;
        ensure!(ask(&world.private, door(&tunnel, port)?, PATIENCE)? == "here", "{port}");
    }
    world.end()
}
