//! An agent whose host has a wrong clock, by which certificates are not valid.

use std::{
    fs,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::named;

use crate::harness::{
    PATIENCE, World, agent_executable, door,
    targets::{ask, greeting},
    text,
};

/// The bound of one attempt.
const TRY: Duration = Duration::from_secs(2);
/// Of the agents' clocks, in seconds.
const A_DAY: i64 = 86_400;

/// The time of day of a program, as a file says it.
pub(crate) struct Clock {
    file: PathBuf,
}

impl Clock {
    pub(crate) fn of(world: &World, name: &str) -> Result<Self> {
        let clock = Self { file: world.lab.path(name) };
        clock.set("+0")?;
        Ok(clock)
    }

    /// Programs see it at once. `offset` is like `+2d`.
    pub(crate) fn set(&self, offset: &str) -> Result<()> {
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{offset}\n"))?;
        Ok(fs::rename(&next, &self.file)?)
    }

    /// Of a shell script that then starts the program. Only the time of day is wrong, and read from the file each time.
    pub(crate) fn lines(&self) -> String {
        format!(
            "export FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 FAKETIME_DISABLE_SHM=1 FAKETIME_DONT_FAKE_MONOTONIC=1\n\
             export LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1)",
            self.file.display()
        )
    }

    /// A program that starts the agent with this clock.
    pub(crate) fn agent(&self, world: &World) -> Result<PathBuf> {
        world.script(
            "agent-with-clock",
            &format!("{}\nexec {} \"$@\"", self.lines(), agent_executable()?.display()),
        )
    }
}

/// A program that starts the agent with a clock that is off by this many seconds.
fn agent_at(world: &World, name: &str, seconds: i64) -> Result<PathBuf> {
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
    // A host without a battery begins in 1970; certificates are valid since 2020. An hour is left for the agent's start.
    let since = i64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_secs())?;
    let executable = agent_at(&world, "behind", A_DAY - 3600 - since)?;
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
    let clock = Clock::of(&world, "clock")?;
    clock.set("+2d")?;
    ensure!(world.gateway.process.stop(PATIENCE)?.success());
    world.restart_after(&clock.lines())?;
    // It enrols while the gateway's clock is wrong.
    let (_meanwhile, other) = world.agent("meanwhile")?;
    clock.set("+0")?;
    let tunnel = world.tunnel(0)?;
    for (port, zid) in [(9000, &zid), (9001, &other)] {
        world.share(&format!("greeting-{port}"), &tunnel, zid, world.target(7001), port)?;
        ensure!(ask(&world.private, door(&tunnel, port)?, PATIENCE)? == "here", "{port}");
    }
    world.end()
}

#[test]
fn an_agent_serves_again_once_its_clock_is_right() -> Result<()> {
    let world = World::loopback().start()?;
    greeting(&world.private, world.target(7001), "here")?;
    let clock = Clock::of(&world, "clock")?;
    let (agent, zid) = world.agent_of("agent", &clock.agent(&world)?)?;
    let tunnel = world.tunnel(0)?;
    let share = world.share("greeting", &tunnel, &zid, world.target(7001), 9000)?;
    let door = door(&tunnel, 9000)?;
    ensure!(ask(&world.private, door, PATIENCE)? == "here");

    // By its clock, what was assigned has expired: it stays connected, and is told of.
    clock.set("+31d")?;
    let path = format!("ipsec-shares/{}", text(&share, "id")?);
    let refused = |share: &Value| share["statusDetail"]["reason"] == "AgentRefused";
    let seen = world.gateway.wait(&world.lab, &path, "refused", PATIENCE, refused)?;
    ensure!(
        seen["statusDetail"]["message"].as_str().is_some_and(|m| m.contains("correct the clock")),
        "{seen}"
    );
    ensure!(ask(&world.private, door, TRY).map_or(true, |said| said.is_empty()));

    clock.set("+0")?;
    world.gateway.wait(&world.lab, &path, "ready", PATIENCE, |share| share["ready"] == true)?;
    ensure!(ask(&world.private, door, PATIENCE)? == "here");
    let said = agent.process.said();
    ensure!(said.matches("connected to the gateway").count() == 1, "over the same connection: {said}");
    world.end()
}
