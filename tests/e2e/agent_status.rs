//! `--status-listen`: an agent says whether it serves, and what it has carried.

use std::{net::TcpListener, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use wicketgate_lab::{Agent, AgentOptions};

use crate::harness::{
    PATIENCE, World, agent_executable, door,
    targets::{ask, here},
};

const AT: &str = "127.0.0.1:9481";

/// The status and the body of an answer of the agent.
fn get(world: &World, path: &str) -> Result<(String, String)> {
    let mut curl = world.private.command("curl");
    curl.args(["-q", "-s", "-m", "10", "-w", "\n%{http_code}"]).arg(format!("http://{AT}{path}"));
    let out = String::from_utf8(curl.output()?.stdout)?;
    let (body, code) = out.rsplit_once('\n').context("no answer")?;
    Ok((code.to_owned(), body.to_owned()))
}

fn ready(world: &World, code: &str, words: &str) -> Result<()> {
    world.lab.until(&format!("/readyz is {code} with {words}"), PATIENCE, || {
        let (found, body) = get(world, "/readyz")?;
        Ok((found == code && body.contains(words)).then_some(()))
    })
}

#[test]
fn an_agent_tells_on_its_host_whether_it_serves_and_what_it_carries() -> Result<()> {
    let mut world = World::loopback().start()?;
    let code = world.gateway.enrollment_code()?;
    world.gateway.process.stop(PATIENCE)?;
    let program = agent_executable()?;
    let executable =
        &world.script("agent", &format!("exec {} \"$@\" --status-listen 9481", program.display()))?;
    let (namespace, server) = (&world.private, world.agents_dial());
    let options = AgentOptions { executable, namespace, name: "agent", server, allow: &["*:*"], log: "info" };
    let mut agent = Agent::start(&world.lab, &options, Some(&code))?;
    ready(&world, "503", "connection refused")?;
    ensure!(get(&world, "/readyz")?.1.contains(r#""status":"enrolling""#));
    ensure!(get(&world, "/livez")?.0 == "200");

    world.restart()?;
    ready(&world, "200", r#""status":"connected""#)?;
    here(&world.private, world.target(7001))?;
    let zid = world.lab.until("the environment", PATIENCE, || {
        Ok(world.gateway.list("environments")?.first().and_then(|e| e["zId"].as_str().map(str::to_owned)))
    })?;
    let tunnel = world.tunnel(0)?;
    world.share("greeting", &tunnel, &zid, world.target(7001), 9000)?;
    for _ in 0..3 {
        ensure!(ask(&world.outside, door(&tunnel, 9000)?, PATIENCE)? == "here");
    }
    let wanted = ["connected 1", "shares 1", "streams_total 3", "streams_active 0", "sent_bytes_total 12"];
    let metrics = world.lab.until("the streams are counted", PATIENCE, || {
        let metrics = get(&world, "/metrics")?.1;
        let has = |line: &&str| metrics.lines().any(|one| one == format!("wicketgate_agent_{line}"));
        Ok(wanted.iter().all(has).then_some(metrics))
    })?;
    ensure!(
        !metrics.contains("127.0.0.1") && metrics.contains("certificate_expiry_timestamp_seconds 1"),
        "{metrics}"
    );

    super::alerts::promtool(&["check", "metrics"], &metrics)?;

    world.gateway.process.kill()?;
    ready(&world, "503", r#""status":"connecting","error":""#)?;
    agent.process.alive()?;
    world.restart()?;
    ready(&world, "200", "connected")?;

    // An address that is taken is named.
    let _taken: TcpListener = world.private.listen("127.0.0.1:9482".parse()?)?;
    let mut second = world.private.command(&program.display().to_string());
    second.args([
        "start",
        "--server",
        "https://127.0.0.1:1",
        "--status-listen",
        "127.0.0.1:9482",
        "--state-dir",
    ]);
    let out = second.arg(world.lab.path("second")).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.code() == Some(1) && said.contains("127.0.0.1:9482: choose another"), "{said}");
    world.end()
}
