//! An agent whose host has a wrong clock, by which certificates are not valid.

use std::{process::Stdio, time::Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use wicketgate_lab::named;

use crate::harness::{PATIENCE, World, agent_executable};

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
fn an_agent_whose_clock_is_behind_says_so_when_it_enrols() -> Result<()> {
    let world = World::loopback().start()?;
    let executable = agent_at(&world, "behind", -A_DAY)?;
    let made = world.gateway.enrollment_code()?;
    let mut command = world.private.command(&executable.display().to_string());
    command.args(["start", "--server", &format!("https://{}", world.agents_dial())]);
    command.args(["--state-dir".as_ref(), world.lab.path("behind-state").as_os_str()]);
    command.env("WICKETGATE_ENROLLMENT_TOKEN", made).stdin(Stdio::null());
    // It ends by itself: with this clock, no later try can succeed.
    let out = command.output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(!out.status.success(), "{said}");
    // The certificate is valid from an hour before it was issued.
    ensure!(
        said.contains("at least 22 h behind the server's")
            || said.contains("at least 23 h behind the server's"),
        "{said}"
    );
    ensure!(said.contains("timedatectl"), "{said}");
    world.end()
}

#[test]
fn an_agent_whose_clock_is_ahead_serves_and_is_named_with_the_difference() -> Result<()> {
    let world = World::loopback().start()?;
    let begin = Instant::now();
    let (agent, _zid) = world.agent_of("ahead", &agent_at(&world, "ahead.sh", A_DAY)?)?;
    let seen = world.lab.until("the clock is told", PATIENCE, || {
        let agents = world.gateway.list("agents")?;
        Ok(agents.into_iter().find(|agent| agent["clockSecondsAhead"].is_number()))
    })?;
    named("none; clockSecondsAhead of the agent, and its log: \"the clock of this host\"", begin.elapsed());
    let ahead = seen["clockSecondsAhead"].as_i64().context("no number")?;
    ensure!((A_DAY - 5..A_DAY + 5).contains(&ahead), "{seen}");
    ensure!(seen["status"] == json!("CONNECTED"), "{seen}");
    let said = agent.process.said();
    ensure!(said.contains("24 h ahead of the server's") && said.contains("timedatectl"), "{said}");
    world.end()
}
