//! The web console and the site page in a real browser, Debian's Chromium, against a running server: `console/tests` has what
//! the browser does. The tests order what happens around it, an agent's start or a device's configuration, over a socket.

mod bench;
mod provider;

use std::{fs::File, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use wicketgate_lab::{Namespace, npm};

use crate::{
    e2e::backup::restored_with_strangers,
    harness::{PATIENCE, World},
};
use bench::Bench;
use provider::IdentityProvider;

/// All tests of a file, on a busy machine.
const LONGEST: Duration = Duration::from_secs(600);

fn sources() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../console"))
}

/// Runs a file of `console/tests` in the namespace of the server.
#[expect(clippy::print_stdout, reason = "the output has what was measured")]
fn browse(world: &World, file: &str, environment: &[(&str, String)]) -> Result<()> {
    npm::install(&sources(), None)?;
    is_built(&world.outside, &world.url())?;
    let dir = world.lab.dir("browser")?;
    let mut bench = Bench::new(world, &dir.join("orders"))?;
    let log = dir.join("log");
    let mut command = world.outside.command("node");
    command
        .args(["node_modules/@playwright/test/cli.js", "test", file, "--output"])
        .arg(dir.join("results"))
        .current_dir(sources())
        .env("CONSOLE_URL", world.url() + "/")
        .env("CONSOLE_TOKEN_FILE", world.gateway.data.join("admin.token"))
        .env("LAB_SOCKET", dir.join("orders"))
        // Chromium keeps its caches there.
        .env("HOME", &dir)
        .env("NO_COLOR", "1")
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(File::create(&log)?)
        .stderr(File::options().append(true).open(&log)?);
    let status = bench.serve(command.spawn().context("no node")?, LONGEST)?;
    let said = std::fs::read_to_string(&log)?;
    ensure!(status.success(), "{said}\n{}", world.gateway.process.tail());
    // What was measured.
    println!("{said}");
    Ok(())
}

/// A program that was built before `npm run build` has no console.
fn is_built(namespace: &Namespace, url: &str) -> Result<()> {
    let mut curl = namespace.command("curl");
    let answer = curl.args(["-q", "-sS", "--compressed", "-H", "Accept: text/html", url]).output()?;
    let page = String::from_utf8_lossy(&answer.stdout).into_owned();
    ensure!(page.contains("<html"), "wicketgate was built without the web console: run `make build`");
    Ok(())
}

#[test]
fn people_sign_in_and_out() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    browse(&world, "session.spec.ts", &[])?;
    world.end()
}

#[test]
fn lists_and_forms() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    browse(&world, "lists.spec.ts", &[])?;
    world.end()
}

#[test]
fn every_page_is_accessible_in_the_light() -> Result<()> {
    browse_every_page("light")
}

#[test]
fn every_page_is_accessible_in_the_dark() -> Result<()> {
    browse_every_page("dark")
}

fn browse_every_page(scheme: &str) -> Result<()> {
    let world = World::with_sites(1).start()?;
    let tunnel = world.tunnel(0)?;
    let (_agent, _) = world.greeting(&tunnel)?;
    let _site = world.connected_site(0, &tunnel)?;
    // A share in need of help.
    let environments = world.gateway.list("environments")?;
    let environment = environments.first().context("no environment")?;
    let body = json!({"name": "unreachable", "ipsecTunnelId": tunnel["id"], "envZId": environment["zId"],
        "target": world.target(7099).to_string(), "ingressPort": 9099});
    world.gateway.api.post(&world.gateway.at("ipsec-shares"), &body)?;
    browse(&world, "pages.spec.ts", &[("SCHEME", scheme.to_owned())])?;
    world.end()
}

/// Runs a file that begins with nothing but a site.
fn browse_from_nothing(file: &str) -> Result<()> {
    let world = World::with_sites(1).start()?;
    let target = ("TARGET", world.target(7001).to_string());
    let peer = ("PEER", World::peer(0).to_string());
    browse(&world, file, &[target, peer])?;
    world.end()
}

#[test]
fn from_nothing_to_a_share_that_answers() -> Result<()> {
    browse_from_nothing("start.spec.ts")
}

#[test]
fn from_nothing_to_a_share_by_keyboard_alone() -> Result<()> {
    browse_from_nothing("keyboard.spec.ts")
}

#[test]
fn a_second_browser_sees_changes() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    browse(&world, "live.spec.ts", &[])?;
    world.end()
}

#[test]
fn people_sign_in_at_an_identity_provider() -> Result<()> {
    let mut world = World::loopback().start()?;
    let _provider = IdentityProvider::start(&mut world)?;
    browse(&world, "provider.spec.ts", &[])?;
    world.end()
}

#[test]
fn the_console_keeps_to_its_budget() -> Result<()> {
    let mut world = World::loopback().start()?;
    world.gateway.process.stop(PATIENCE)?;
    world.restart_with("--trusted-proxy 127.0.0.1")?;
    let (_agent, _) = world.agent("agent")?;
    browse(&world, "budget.spec.ts", &[])?;
    world.end()
}

#[test]
fn a_list_of_many_shares_does_not_stutter() -> Result<()> {
    let mut world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    browse(&world, "many.spec.ts", &[])?;
    // Deleting each would take longer than the test, and without IPsec nothing but the lab's directory is left.
    world.gateway.process.stop(PATIENCE)?;
    world.lab.remove()
}

#[test]
fn a_stranger_follows_a_handover_link() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let tunnel = world.tunnel(0)?;
    let (_agent, _) = world.greeting(&tunnel)?;
    browse(&world, "site.spec.ts", &[])?;
    world.end()
}

#[test]
fn the_site_page_by_keyboard_alone_in_a_hidden_tab_and_at_its_limit() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let tunnel = world.tunnel(0)?;
    let (_agent, _) = world.greeting(&tunnel)?;
    browse(&world, "site-page.spec.ts", &[])?;
    world.end()
}

#[test]
fn sessions_of_two_people_stay_apart() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    browse(&world, "sessions-shared.spec.ts", &[])?;
    world.end()
}

#[test]
fn secrets_stay_where_they_belong() -> Result<()> {
    let world = World::with_sites(1).start()?;
    world.tunnel(0)?;
    let (_agent, _) = world.agent("agent")?;
    browse(&world, "secrets.spec.ts", &[])?;
    world.end()
}

#[test]
fn an_operator_adopts_an_agent_that_a_restored_database_does_not_know() -> Result<()> {
    let mut world = World::loopback().start()?;
    let (_first, _) = world.agent("agent")?;
    let strangers = restored_with_strangers(&mut world)?;
    browse(&world, "unknown-agents.spec.ts", &[("REMOVED", strangers.removed)])?;
    drop(strangers.agents);
    world.end()
}

#[test]
fn an_operator_sees_when_the_last_backup_was_made() -> Result<()> {
    let world = World::loopback().start()?;
    let (_agent, _) = world.agent("agent")?;
    browse(&world, "backup.spec.ts", &[])?;
    world.end()
}
