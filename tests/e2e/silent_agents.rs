//! An agent whose host is cut off or hangs: its connections do not end, and it does not answer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use wicketgate_lab::named;

use crate::harness::{
    AT_ONCE, PATIENCE, World,
    targets::{ask, echo, here},
    text,
};

/// From the cut until the API says why: the gateway decides 4.5 s after the last answer. `make named` measures it against the
/// promise of five seconds; a test that shares two processors with others may be late without a fault.
const NAMED: Duration = Duration::from_secs(8);
/// How long a bad line is watched.
const WATCHED: Duration = Duration::from_secs(12);

/// The agents that are connected and do not answer.
fn unanswered(world: &World) -> Result<Vec<Value>> {
    let agents = world.gateway.list("agents")?;
    Ok(agents
        .into_iter()
        .filter(|a| a["status"] == "CONNECTED" && a["unansweredSince"].is_string())
        .collect())
}

#[test]
fn an_agent_that_is_cut_off_is_named_within_five_seconds_and_serves_again_with_its_first_answer() -> Result<()>
{
    let (world, published) = World::with_sites(1).publish(echo)?;
    let _site = world.connected_site(0, &published.tunnel)?;
    let share = format!("ipsec-shares/{}", text(&published.share, "id")?);
    let is = |ready: bool| move |it: &Value| it["status"] == "DEPLOYED" && it["ready"] == ready;
    world.gateway.wait(&world.lab, &share, "ready", PATIENCE, is(true))?;

    world.cut("private")?;
    let cut = Instant::now();
    let seen = world.gateway.wait(&world.lab, &share, "not ready", NAMED, is(false))?;
    named("AgentSilent", cut.elapsed());
    ensure!(seen["statusDetail"]["reason"] == "AgentSilent", "{seen}");
    let [agent] = &unanswered(&world)?[..] else { anyhow::bail!("no agent is suspected") };
    let message = text(&seen["statusDetail"], "message")?;
    ensure!(message.contains(text(agent, "id")?) && message.contains(text(agent, "name")?), "{message}");
    let check = world.gateway.api.post(&world.gateway.at(&format!("{share}/check")), &json!({}))?;
    let hop = &check["hops"][3];
    ensure!(hop["hop"] == "agent" && hop["state"] == "FAILED" && hop["reason"] == "AgentSilent", "{check}");
    ensure!(hop["advice"].is_string() && check["hops"][4]["state"] == "UNKNOWN", "{check}");

    world.restore()?;
    world.gateway.wait(&world.lab, &share, "ready again", PATIENCE, is(true))?;
    ensure!(unanswered(&world)?.is_empty());
    world.end()
}

#[test]
fn new_connections_avoid_an_agent_that_hangs_while_another_one_answers() -> Result<()> {
    let (world, published) = World::loopback().publish(here)?;
    let _second = world.replica("second")?;
    let share = format!("ipsec-shares/{}", text(&published.share, "id")?);
    world.lab.until("both agents serve the share", PATIENCE, || {
        let agents = world.gateway.list("agents")?;
        let serving = agents.iter().filter(|agent| agent["shares"][0]["state"] == "SERVING").count();
        Ok((serving == 2).then_some(()))
    })?;
    let pid = Pid::from_raw(published.agent.process.pid().cast_signed()).context("no pid")?;
    kill_process(pid, Signal::STOP)?;
    // Those that wait for the hanging agent go on to the other one.
    for _ in 0..4 {
        let begin = Instant::now();
        assert_eq!(ask(&world.outside, published.door, PATIENCE)?, "here");
        ensure!(begin.elapsed() < NAMED + AT_ONCE, "served after {:?}", begin.elapsed());
    }
    world.lab.until("an agent is suspected", NAMED, || Ok((unanswered(&world)?.len() == 1).then_some(())))?;
    for _ in 0..10 {
        let begin = Instant::now();
        assert_eq!(ask(&world.outside, published.door, PATIENCE)?, "here");
        ensure!(begin.elapsed() < AT_ONCE, "served after {:?}", begin.elapsed());
    }
    let seen = world.gateway.wait(&world.lab, &share, "ready", NAMED, |s| s["ready"] == true)?;
    ensure!(seen.get("statusDetail").is_none(), "{seen}");

    kill_process(pid, Signal::CONT)?;
    world.lab.until("it answers", NAMED, || Ok(unanswered(&world)?.is_empty().then_some(())))?;
    world.end()
}

#[test]
fn a_line_that_loses_packets_is_no_suspicion() -> Result<()> {
    let (world, _published) = World::with_sites(1).publish(echo)?;
    let lossy = "numgen random mod 20 == 0 drop";
    world.filter(&format!("iifname private {lossy}\n oifname private {lossy}"))?;
    let begin = Instant::now();
    while begin.elapsed() < WATCHED {
        let suspected = unanswered(&world)?;
        ensure!(suspected.is_empty(), "{suspected:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    world.restore()?;
    world.end()
}
