//! A real agent's report of itself: stored with the agent, in the API and on the command line.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use wicketgate_lab::{Agent, AgentOptions};

use crate::harness::{PATIENCE, World, agent_executable, targets::here, text, user::User};

#[test]
fn an_agent_reports_what_it_finds_and_the_report_outlives_it() -> Result<()> {
    let world = World::loopback().start()?;
    let (open, closed) = (world.target(7001).to_string(), world.target(7009).to_string());
    here(&world.private, world.target(7001))?;
    let program = agent_executable()?;
    let allow = [open.as_str(), closed.as_str()];
    let options = AgentOptions { allow: &allow, ..world.agent_options("agent", &program) };
    let (mut agent, _) = Agent::enrol(&world.lab, &options, &world.gateway)?;

    let id = text(world.gateway.list("agents")?.first().context("no agent")?, "id")?.to_owned();
    let path = format!("agents/{id}");
    let reported = |what: &str, is: &dyn Fn(&Value) -> bool| {
        world
            .gateway
            .wait(&world.lab, &path, what, PATIENCE, |agent| agent["report"]["at"].is_string() && is(agent))
    };
    let seen = reported("reported", &|_| true)?;
    let findings = seen["report"]["findings"].as_array().context("no findings")?;
    let of = |subject: &str| {
        findings
            .iter()
            .find(|finding| finding["subject"] == subject)
            .with_context(|| format!("no {subject}: {seen}"))
    };
    assert_eq!((&of(&open)?["result"], &of(&closed)?["result"]), (&"PASS".into(), &"FAIL".into()), "{seen}");
    ensure!(text(of(&closed)?, "message")?.contains("refused"), "{seen}");
    ensure!(text(&seen["report"], "os")?.contains("Linux"), "{seen}");
    ensure!(seen["report"]["openFiles"].as_u64() > Some(100), "{seen}");
    let listed = world.gateway.list("agents")?;
    ensure!(listed[0].get("report").is_none(), "{listed:?}");

    agent.process.kill()?;
    reported("offline with its report", &|agent| agent["status"] == "OFFLINE")?;
    let user = User::new(&world, "user")?;
    user.sign_in()?;
    let shown = user.says(&format!("agent get {id}"))?;
    ensure!(shown.contains("report:") && shown.contains(&closed), "{shown}");
    world.end()
}
