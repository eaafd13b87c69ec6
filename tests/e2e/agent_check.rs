//! `wicketgate-agent check`: each fault on the agent's way is told at its step, and a check disturbs nothing.

use std::{fs, process::Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::harness::{
    PATIENCE, World, agent_executable,
    targets::{ask, here},
    text,
};

/// Runs a check with the state directory of this name.
fn check(world: &World, name: &str, flags: &[&str]) -> Result<Output> {
    check_of(world, &agent_executable()?.display().to_string(), name, flags)
}

fn check_of(world: &World, program: &str, name: &str, flags: &[&str]) -> Result<Output> {
    let mut command = world.private.command(program);
    command.args(["check", "--state-dir"]).arg(world.lab.path(name));
    if !flags.contains(&"--server") {
        command.args(["--server", &format!("https://{}", world.agents_dial())]);
    }
    Ok(command.env_remove("RUST_LOG").args(flags).output()?)
}

/// Expects these verdicts in the report, in their order, and the exit status that follows from them.
fn expect(out: &Output, verdicts: &[&str]) -> Result<()> {
    let report = String::from_utf8_lossy(&out.stdout);
    let found: Vec<_> =
        report.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
    ensure!(found == verdicts, "expected {verdicts:?}:\n{report}\n{}", String::from_utf8_lossy(&out.stderr));
    let fails = verdicts.iter().any(|verdict| verdict.starts_with("FAIL"));
    ensure!(out.status.code() == Some(i32::from(fails)), "{}", out.status);
    Ok(())
}

fn says(out: &Output, words: &str) -> Result<()> {
    let report = String::from_utf8_lossy(&out.stdout);
    ensure!(report.contains(words), "{words:?} is not in:\n{report}");
    Ok(())
}

/// Behind the way to the server.
const NOT_ASKED: [&str; 3] = ["SKIP clock", "SKIP allow-list", "SKIP target"];

/// What the running agent has.
const ALLOW: [&str; 2] = ["--allow", "*:*"];

#[test]
fn a_check_before_the_enrolment_keeps_the_code_and_writes_nothing() -> Result<()> {
    let world = World::loopback().start()?;
    let code = world.lab.path("code");
    fs::write(&code, world.gateway.enrollment_code()?)?;
    let code = code.display().to_string();
    let with_code =
        |flags: &[&str]| check(&world, "agent", &[&["--enrollment-token-file", &code], flags].concat());
    let good = with_code(&[])?;
    let way = ["SKIP name", "PASS tcp", "SKIP proxy", "PASS tls", "SKIP identity", "PASS clock"];
    expect(&good, &[&way[..], &NOT_ASKED[1..]].concat())?;
    let none = check(&world, "agent", &[])?;
    let way = ["SKIP name", "PASS tcp", "SKIP proxy", "SKIP tls", "FAIL identity"];
    expect(&none, &[&way[..], &NOT_ASKED].concat())?;
    says(&none, "make a code")?;
    ensure!(!world.lab.path("agent").exists(), "the check made the state directory");

    let closed = with_code(&["--server", "https://localhost:7444"])?;
    let way = ["PASS name", "FAIL tcp", "SKIP proxy", "SKIP tls", "SKIP identity"];
    expect(&closed, &[&way[..], &NOT_ASKED].concat())?;
    says(&closed, "connection refused")?;
    let api = with_code(&["--server", "https://127.0.0.1:8080"])?;
    let way = ["SKIP name", "PASS tcp", "SKIP proxy", "FAIL tls", "SKIP identity"];
    expect(&api, &[&way[..], &NOT_ASKED].concat())?;
    says(&api, "does not speak TLS")?;
    let unknown = with_code(&["--server", "https://no.invalid:7443"])?;
    let way = ["FAIL name", "FAIL tcp", "SKIP proxy", "SKIP tls", "SKIP identity"];
    expect(&unknown, &[&way[..], &NOT_ASKED].concat())?;
    says(&unknown, "getent ahosts no.invalid")?;
    let usage = check(&world, "agent", &["--server", "http://a:1"])?;
    ensure!(usage.status.code() == Some(2) && usage.stdout.is_empty(), "{usage:?}");

    // The code still works.
    let enrolled = world.start_agent("agent", Some(fs::read_to_string(&code)?.trim()))?;
    world.lab.until("the agent is listed", PATIENCE, || Ok(world.gateway.list("agents")?.pop()))?;
    drop(enrolled);
    world.end()
}

#[test]
fn a_check_beside_a_running_agent_names_each_target_and_disturbs_nothing() -> Result<()> {
    let (world, published) = World::loopback().publish(here)?;
    let way = ["SKIP name", "PASS tcp", "SKIP proxy", "PASS tls", "PASS identity", "PASS clock"];
    let good = check(&world, "agent", &ALLOW)?;
    expect(&good, &[&way[..], &["PASS allow-list", "PASS target"]].concat())?;
    says(&good, "(share published)")?;

    let (tunnel, zid) = (&published.tunnel, &*published.zid);
    world.share("closed", tunnel, zid, world.target(7009), 9009)?;
    let closed = check(&world, "agent", &[&ALLOW[..], &["--json"]].concat())?;
    ensure!(closed.status.code() == Some(1), "{closed:?}");
    let report: Value = serde_json::from_slice(&closed.stdout)?;
    let checks = report["checks"].as_array().context("no checks")?;
    let failed: Vec<_> = checks.iter().filter(|line| line["result"] == "FAIL").collect();
    ensure!(failed.len() == 1 && failed[0]["check"] == "target", "{report:#}");
    ensure!(failed[0]["subject"] == world.target(7009).to_string(), "{report:#}");
    let message = text(failed[0], "message")?;
    ensure!(message.contains("connection refused") && message.contains("start the service"), "{message}");

    let elsewhere = check(&world, "agent", &["--allow", "127.0.0.1:7001"])?;
    expect(&elsewhere, &[&way[..], &["FAIL allow-list", "PASS target"]].concat())?;
    says(&elsewhere, "127.0.0.1:7009 is not in the agent's allow list")?;

    // The running agent has not noticed.
    ensure!(ask(&world.outside, published.door, PATIENCE)? == "here");
    let said = world.gateway.process.said();
    ensure!(said.matches("agents::control: agent connected").count() == 1, "{said}");
    ensure!(!said.contains("two agents have the same identity"), "{said}");

    // One whose clock is wrong.
    let lines = format!(
        "export FAKETIME=+86400 FAKETIME_DISABLE_SHM=1 FAKETIME_DONT_FAKE_MONOTONIC=1\n\
         export LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1)\nexec {} \"$@\"",
        agent_executable()?.display()
    );
    let ahead = check_of(&world, &world.script("ahead", &lines)?.display().to_string(), "agent", &[])?;
    says(&ahead, "FAIL  clock       the clock of this host: is 24 h ahead of the server's")?;

    // One that was removed.
    let agents = world.gateway.list("agents")?;
    let id = text(agents.first().context("no agent")?, "id")?;
    world.gateway.api.delete(&world.gateway.at(&format!("agents/{id}")))?;
    let way = ["SKIP name", "PASS tcp", "SKIP proxy", "PASS tls", "FAIL identity"];
    world
        .lab
        .until("the agent is removed", PATIENCE, || {
            let removed = check(&world, "agent", &[])?;
            Ok((says(&removed, "this agent was removed from environment").is_ok()).then_some(removed))
        })
        .and_then(|removed| expect(&removed, &[&way[..], &NOT_ASKED].concat()))?;
    world.end()
}
