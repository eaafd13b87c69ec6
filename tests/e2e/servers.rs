//! Several servers on one database: whichever a client asks, and whichever has the gateway's link.

use std::{
    fs,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use wicketgate_lab::{Agent, GatewayOptions, GatewayProcess, Site};

use super::roles::clients;
use crate::harness::{
    Apart, PATIENCE, World, door, gateway_options,
    targets::{ask, greeting},
    text,
};

/// A server that does not answer is noticed after 8 s, and one that does not beat after 10 s. A busy machine takes longer.
const TAKEN_OVER: Duration = Duration::from_secs(40);

/// Two servers, `world.gateway` and another one, and a gateway that is linked to the first.
struct Two {
    world: World,
    apart: Apart,
    other: GatewayProcess,
    /// Runs until it is dropped.
    _agent: Agent,
}

impl Two {
    fn start() -> Result<Option<(Self, Site, Value, String)>> {
        let Some((world, apart)) = World::with_sites(1).start_apart()? else { return Ok(None) };
        greeting(&world.private, world.target(7001), "here")?;
        let other = apart.start_another_server(&world, 1)?;
        let (agent, zid) = world.agent("agent")?;
        let two = Self { world, apart, other, _agent: agent };
        // Told over the link that is there.
        two.gateway_says("127.0.0.1:8445")?;
        let tunnel = two.world.tunnel(0)?;
        let site = two.world.connected_site(0, &tunnel)?;
        Ok(Some((two, site, tunnel, zid)))
    }

    fn gateway_says(&self, what: &str) -> Result<()> {
        let log = self.apart.gateway.log().to_owned();
        self.world.lab.until(&format!("the gateway says {what}"), TAKEN_OVER, || {
            Ok(fs::read_to_string(&log)?.contains(what).then_some(()))
        })
    }

    /// Asks a server for what it has to ask the gateway for, whichever server that is linked to.
    fn asks_the_gateway(&self, server: &GatewayProcess, share: &str, tunnel: &str) -> Result<()> {
        let check = server.api.post(&server.at(&format!("ipsec-shares/{share}/check")), &json!({}))?;
        let hops = check["hops"].as_array().context("no hops")?;
        ensure!(hops.len() > 3 && hops.iter().all(|hop| hop["state"] == "OK"), "{check}");
        let log = server.api.text(&server.at(&format!("{tunnel}/ike-log")))?;
        ensure!(log.contains("established"), "{log}");
        let agents = server.api.get(&server.at("agents"))?;
        ensure!(agents.to_string().contains(share), "{agents}");
        let strangers = server.api.get("/frontdoor/v2/unknown-agents")?;
        ensure!(strangers["totalElements"] == 0, "{strangers}");
        Ok(())
    }

    /// Creates a share at one of the servers, and connects through it.
    fn publish(
        &self,
        server: &GatewayProcess,
        (site, tunnel, zid): (&Site, &Value, &str),
        port: u16,
    ) -> Result<()> {
        let target = self.world.target(7001).to_string();
        server.share(&self.world.lab, &format!("port-{port}"), tunnel, zid, &target, port)?;
        let door = SocketAddr::new(door(tunnel, port)?.ip(), port);
        ensure!(ask(&site.namespace, door, PATIENCE)? == "here");
        Ok(())
    }
}

fn signal(server: &GatewayProcess, signal: Signal) -> Result<()> {
    let pid = i32::try_from(server.process.pid())?;
    kill_process(Pid::from_raw(pid).context("no pid")?, signal).context("cannot send a signal")
}

/// Connects again and again during `work`, in which no connection may fail.
fn without_a_failure(site: &Site, door: SocketAddr, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let ends = AtomicBool::new(false);
    let (answers, failed) = thread::scope(|scope| -> Result<_> {
        let asking = scope.spawn(|| clients(&site.namespace, door, &ends));
        let done = work();
        ends.store(true, Ordering::Relaxed);
        let asked = asking.join().map_err(|_| anyhow::anyhow!("the clients panicked"))?;
        done.map(|()| asked)
    })?;
    ensure!(failed.is_none(), "a connection failed after {answers}: {failed:?}");
    ensure!(answers > 5, "only {answers} connections were made");
    Ok(())
}

#[test]
fn any_server_answers_and_the_loss_of_one_costs_no_connection() -> Result<()> {
    let Some((mut two, site, tunnel, zid)) = Two::start()? else { return Ok(()) };
    let of = |port| (&site, &tunnel, zid.as_str(), port);
    let publish = |two: &Two, server: &GatewayProcess, (site, tunnel, zid, port): (_, _, _, _)| {
        two.publish(server, (site, tunnel, zid), port)
    };
    publish(&two, &two.world.gateway, of(9000))?;
    // The gateway's link is not there, and it takes requests all the same.
    for server in [&two.world.gateway, &two.other] {
        let ready = server.api.call("GET", "/readyz", None)?;
        ensure!(ready.status == 200, "{ready}");
    }
    publish(&two, &two.other, of(9001))?;

    // What only the gateway knows, asked of each server.
    let share = text(&two.other.list("ipsec-shares")?[0], "id")?.to_owned();
    let tunnel_path = format!("ipsec-tunnels/{}", text(&tunnel, "id")?);
    two.asks_the_gateway(&two.world.gateway, &share, &tunnel_path)?;
    two.asks_the_gateway(&two.other, &share, &tunnel_path)?;

    // A request that is sent again at the other server is the same request.
    let body = json!({"name": "once", "ipsecTunnelId": tunnel["id"], "envZId": zid, "target": "192.0.2.1:1",
        "ingressPort": 9002});
    let path = two.other.at("ipsec-shares");
    let first = two.world.gateway.api.post_once(&path, &body, "the-same-key")?;
    let again = two.other.api.post_once(&path, &body, "the-same-key")?;
    ensure!(first["id"] == again["id"] && first["id"].is_string(), "{first}\n{again}");

    // Killed: the gateway finds the other one.
    let door = door(&tunnel, 9000)?;
    without_a_failure(&site, door, || {
        two.world.gateway.process.kill()?;
        two.gateway_says("holds=true")?;
        publish(&two, &two.other, of(9003))
    })?;
    two.asks_the_gateway(&two.other, &share, &tunnel_path)?;
    let gateways = two.other.api.get("/frontdoor/v2/gateways")?;
    ensure!(gateways["content"][0]["status"] == "ONLINE", "{gateways}");
    two.apart.start_server(&mut two.world)?;
    two.asks_the_gateway(&two.world.gateway, &share, &tunnel_path)?;
    publish(&two, &two.world.gateway, of(9004))?;
    two.world.gateway.clear(&two.world.lab, PATIENCE)
}

#[test]
fn a_server_that_was_frozen_overwrites_nothing_of_its_successor() -> Result<()> {
    let Some((two, site, tunnel, zid)) = Two::start()? else { return Ok(()) };
    let (first, other) = (&two.world.gateway, &two.other);
    let own = (&site, &tunnel, zid.as_str());
    two.publish(first, own, 9000)?;
    let door = door(&tunnel, 9000)?;
    let path = format!("ipsec-tunnels/{}", text(&tunnel, "id")?);
    without_a_failure(&site, door, || {
        signal(first, Signal::STOP)?;
        two.gateway_says("holds=true")?;
        two.publish(other, own, 9001)?;
        other.wait(&two.world.lab, &path, "connected", PATIENCE, |t| t["connection"]["state"] == "UP")?;
        signal(first, Signal::CONT)?;
        // It answers, and what it says is what the other one has written.
        first.wait(&two.world.lab, &path, "deployed", PATIENCE, |t| t["status"] == "DEPLOYED")?;
        two.publish(first, own, 9002)
    })?;
    let shares = first.api.get(&first.at("ipsec-shares?status=DEPLOYED"))?;
    ensure!(shares["totalElements"] == 3, "{shares}");
    let said = first.process.said();
    ensure!(!said.contains("panicked"), "{said}");

    // Whoever wants the database alone is refused.
    let free = |port| SocketAddr::new([127, 0, 0, 1].into(), port);
    let options = GatewayOptions {
        listen: free(8090),
        agent_listen: free(8091),
        ..gateway_options(&two.world.outside, "off", "info")
    };
    let (mut up, _) = GatewayProcess::command(&two.world.lab, &options)?;
    let refused = up.env("WICKETGATE_DATABASE", two.apart.postgres.socket_url()).output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        !refused.status.success() && said.contains("another server uses this PostgreSQL database"),
        "{said}"
    );
    first.clear(&two.world.lab, PATIENCE)
}
