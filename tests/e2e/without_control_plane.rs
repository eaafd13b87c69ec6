//! Every server and the database are away: what was served is served, also by a gateway and an agent that start meanwhile.

use std::{
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use wicketgate_lab::Namespace;

use crate::harness::{
    PATIENCE, World,
    builder::Apart,
    door,
    targets::{ask, connect, greeting},
    text, wicketgate_executable,
};

/// A new connection of a client, with an answer.
const TRY: Duration = Duration::from_secs(2);
/// From the start of a gateway and an agent to the first connection, on a machine with nothing else to do a second.
const AGAIN: Duration = Duration::from_secs(10);
/// The grace period of a key: it ends while no server is there.
const GRACE: Duration = Duration::from_secs(12);
/// The answer of the target, which a client receives for each connection.
const ANSWER: &str = "an answer of 25 characters";

/// Counts the answers that clients have received.
struct Clients<'a> {
    site: &'a Namespace,
    answers: u64,
}

impl Clients<'_> {
    fn ask(&mut self, door: SocketAddr) -> Result<()> {
        let said = ask(self.site, door, TRY)?;
        ensure!(said == ANSWER, "{said}");
        self.answers += 1;
        Ok(())
    }

    /// Until the first answer. Returns how long that took.
    fn ask_until_answered(&mut self, world: &World, what: &str, door: SocketAddr) -> Result<Duration> {
        let begin = Instant::now();
        world.lab.until(what, PATIENCE, || Ok(self.ask(door).ok()))?;
        Ok(begin.elapsed())
    }

    /// What the server knows of the share's traffic is what clients have received.
    fn are_counted(&self, world: &World, share: &serde_json::Value) -> Result<()> {
        let bytes = self.answers * ANSWER.len() as u64;
        world.carried(share, |sum| sum("tx") == bytes && sum("connections") >= self.answers)
    }
}

/// Kills the server and its database.
fn lose_control_plane(world: &mut World, apart: &mut Apart) -> Result<()> {
    world.gateway.process.kill()?;
    apart.postgres.kill()
}

fn control_plane_returns(world: &mut World, apart: &mut Apart) -> Result<()> {
    apart.postgres.restart()?;
    apart.start_server(world)
}

/// What a host that was started again has of a gateway: the files.
fn lose_what_runs(world: &World) -> Result<()> {
    let mut down = world.outside.command(&wicketgate_executable().display().to_string());
    down.args(["down".as_ref(), "--state-dir".as_ref(), world.lab.path("gateway").as_os_str()]);
    let out = down.output()?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

#[test]
fn a_gateway_and_an_agent_that_start_without_any_server_serve_what_they_served() -> Result<()> {
    let Some((mut world, mut apart)) = World::with_sites(1).start_apart()? else { return Ok(()) };
    greeting(&world.private, world.target(7001), ANSWER)?;
    let (mut agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    let share = world.share("kept", &tunnel, &zid, world.target(7001), 9000)?;
    let removed = world.share("removed", &tunnel, &zid, world.target(7001), 9001)?;
    let mut site = world.connected_site(0, &tunnel)?;
    let site_namespace = site.namespace.clone();
    let mut clients = Clients { site: &site_namespace, answers: 0 };
    let (kept_door, removed_door) = (door(&tunnel, 9000)?, door(&tunnel, 9001)?);
    clients.ask(kept_door)?;
    ask(&site_namespace, removed_door, PATIENCE)?;
    let id = text(&removed, "id")?;
    world.gateway.api.delete(&world.gateway.at(&format!("ipsec-shares/{id}")))?;
    world.gateway.wait(&world.lab, &format!("ipsec-shares/{id}"), "DELETED", PATIENCE, |share| {
        share["status"] == "DELETED"
    })?;
    // What was told as deleted is not served again: the gateway is killed at once.
    clients.are_counted(&world, &share)?;
    let path = format!("ipsec-tunnels/{}", text(&tunnel, "id")?);
    let grace = json!({"graceSeconds": GRACE.as_secs()});
    world.gateway.api.post(&world.gateway.at(&format!("{path}/psk")), &grace)?;
    let rotated = Instant::now();
    world.gateway.wait(&world.lab, &path, "DEPLOYED", PATIENCE, |tunnel| tunnel["status"] == "DEPLOYED")?;
    let vpn_config = world.vpn_config(&tunnel)?;
    lose_control_plane(&mut world, &mut apart)?;
    apart.gateway.kill()?;
    agent.process.kill()?;

    apart.start_gateway(&world)?;
    agent = world.start_agent("agent", None)?;
    let took =
        clients.ask_until_answered(&world, "new connections pass after both were killed", kept_door)?;
    ensure!(took < AGAIN, "{took:?}");
    let refused = connect(&site_namespace, removed_door, TRY);
    ensure!(refused.as_ref().is_err_and(|why| format!("{why:#}").contains("refused")), "{refused:?}");
    for _ in 0..20 {
        clients.ask(kept_door)?;
    }
    let said = apart.gateway.said();
    ensure!(said.contains("serving the desired state of the last run"), "{said}");

    // The grace period of the old key ends, and the tunnel does not.
    thread::sleep((rotated + GRACE).saturating_duration_since(Instant::now()));
    // The key is refused repeatedly, not only while the gateway tries another key.
    world.lab.until("the old key is refused", PATIENCE, || {
        Ok((!site.try_again()? && !site.try_again()? && !site.try_again()?).then_some(()))
    })?;
    site.load(&vpn_config)?;
    world.lab.until("the new key is accepted", PATIENCE, || Ok(site.try_again()?.then_some(())))?;
    clients.ask_until_answered(&world, "new connections pass with the new key", kept_door)?;

    // The host starts again, and a site that dials in anew finds its keys.
    ensure!(apart.gateway.stop(PATIENCE)?.success(), "{}", apart.gateway.tail());
    site.stop()?;
    lose_what_runs(&world)?;
    apart.start_gateway(&world)?;
    site.start(&world.lab, &vpn_config)?;
    site.connected(&world.lab, PATIENCE).with_context(|| apart.gateway.tail())?;
    clients.ask_until_answered(&world, "new connections pass after the host has started", kept_door)?;

    // Back again, the server finds what it wants, and hears what was carried meanwhile.
    control_plane_returns(&mut world, &mut apart)?;
    let log = apart.gateway.log().to_owned();
    world.lab.until("the gateway says what it holds", PATIENCE, || {
        Ok(fs::read_to_string(&log)?.contains("holds=true").then_some(()))
    })?;
    let log = world.gateway.process.log().to_owned();
    world.lab.until("the gateway is sent the difference, if there is one", PATIENCE, || {
        let said = fs::read_to_string(&log)?;
        let is_sent =
            said.contains("is sent what it has missed") || said.contains("holds what it is to serve");
        Ok(is_sent.then_some(()))
    })?;
    clients.are_counted(&world, &share)?;
    let path = format!("ipsec-shares/{}", text(&share, "id")?);
    world.gateway.wait(&world.lab, &path, "DEPLOYED", PATIENCE, |share| share["status"] == "DEPLOYED")?;
    clients.ask(kept_door)?;
    let said = world.gateway.process.said();
    ensure!(!said.contains("is sent everything"), "{said}");
    drop(agent);
    world.gateway.clear(&world.lab, PATIENCE)
}
