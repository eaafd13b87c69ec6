//! Each way in which a connection is not served is counted by its reason, and the share's status says the same.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{Api, GatewayOptions, GatewayProcess, named};
use wicketgate_model::FailureReason;

use crate::harness::{
    PATIENCE, World, agent_executable, door, gateway_options,
    targets::{connect, connect_or_reset, echo, exchange, fill},
    text, wicketgate_executable,
};

/// Limits of open files.
const MANY: u32 = 4096;
const FEW: u32 = 800;
/// Where the gateway serves its metrics.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8481);

/// A world whose gateway serves metrics, with this limit of open files.
fn world(files: u32) -> Result<World> {
    let mut world = World::loopback().start()?;
    world.gateway.process.stop(PATIENCE)?;
    let gateway = wicketgate_executable().display();
    // The script is also run as `down`, when the world ends.
    let lines = format!(
        "[ \"$1\" = up ] && set -- \"$@\" --admin-listen {METRICS}\nexec prlimit --nofile={files} {gateway} \"$@\""
    );
    let executable = &world.script("gateway", &lines)?;
    let options = GatewayOptions { executable, ..gateway_options(&world.outside, "off", "info") };
    world.gateway = GatewayProcess::start(&world.lab, &options)?;
    Ok(world)
}

/// The failed connections of a share, by their reasons.
fn failures(world: &World, share: &Value) -> Result<BTreeMap<String, u64>> {
    let begin = format!("wicketgate_share_failures_total{{share={},reason=\"", share["id"]);
    let api = Api::new(&world.outside, METRICS, &world.gateway.data.join("admin.token"))?;
    let metrics = api.text("/metrics")?;
    let counts = metrics.lines().filter_map(|line| line.strip_prefix(&begin)?.split_once("\"} "));
    let counts = counts.filter(|(_, count)| *count != "0");
    counts.map(|(reason, count)| Ok((reason.to_owned(), count.parse()?))).collect()
}

/// Waits until connections of the share have failed for this reason, and for no other. The first one began at `begin`.
fn failed(world: &World, share: &Value, reason: &str, begin: Instant) -> Result<()> {
    let mut seen = BTreeMap::new();
    let counted = world.lab.until(&format!("{reason} of {}", share["name"]), PATIENCE, || {
        seen = failures(world, share)?;
        Ok((!seen.is_empty()).then_some(()))
    });
    counted.with_context(|| world.gateway.process.tail())?;
    named(reason, begin.elapsed());
    ensure!(seen.keys().eq([reason]), "{}: {seen:?}", share["name"]);
    Ok(())
}

/// A program that starts an agent whose name server says of each name that it does not exist, or that it cannot tell.
fn agent_without_names(world: &World) -> Result<PathBuf> {
    let server = world.private.enter(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)))??;
    std::thread::spawn(move || -> Result<()> {
        let mut message = [0; 512];
        loop {
            let (len, from) = server.recv_from(&mut message)?;
            // A response with NXDOMAIN or SERVFAIL (RFC 1035, section 4.1.1).
            let is_broken = message[..len].windows(6).any(|part| part == b"broken");
            message[2] |= 0x80;
            message[3] = if is_broken { 0x82 } else { 0x83 };
            server.send_to(&message[..len], from)?;
        }
    });
    let file = world.lab.path("resolv.conf");
    fs::write(&file, "nameserver 127.0.0.1\n")?;
    let agent = agent_executable()?;
    let (file, agent) = (file.display(), agent.display());
    let lines = format!(
        "exec unshare -m sh -c 'mount --bind {file} /etc/resolv.conf && exec {agent} \"$@\"' sh \"$@\""
    );
    world.script("agent", &lines)
}

#[test]
fn a_target_that_is_not_reached_is_counted_by_the_cause() -> Result<()> {
    let world = world(MANY)?;
    // One port swallows packets, and one network has no route.
    world
        .private
        .nft("table ip void { chain in { type filter hook input priority 0; tcp dport 7005 drop; }; }")?;
    world.private.ip("route add unreachable 192.0.2.0/24\nroute add prohibit 198.18.0.0/16")?;
    let (_agent, zid) = world.agent_of("agent", &agent_without_names(&world)?)?;
    let tunnel = world.tunnel(0)?;
    let silent = world.target(7005).to_string();
    let refused = world.target(7006).to_string();
    let causes = [
        ("connection-refused", refused.as_str()),
        ("dial-timeout", silent.as_str()),
        ("target-unreachable", "192.0.2.1:80"),
        ("name-not-found", "nowhere.invalid:80"),
        ("no-name-server", "broken.invalid:80"),
        ("no-route", "203.0.113.99:80"),
        ("not-permitted", "198.18.0.1:80"),
    ];
    let mut shares = Vec::new();
    for (port, (cause, target)) in (9000..).zip(causes) {
        let share = world.gateway.share(&world.lab, cause, &tunnel, &zid, target, port)?;
        let begin = Instant::now();
        // The client waits for the agent's answer in its own time; one that comes at once resets it before it has connected.
        let client = connect_or_reset(&world.outside, door(&tunnel, port)?, PATIENCE)?;
        shares.push((share, cause, begin, client));
    }
    let mut waiting: Vec<_> =
        shares.iter().map(|(share, cause, begin, _client)| (share, cause, begin)).collect();
    world.lab.until("each is counted", PATIENCE, || {
        let mut at = 0;
        while let Some((share, cause, begin)) = waiting.get(at) {
            let counted = failures(&world, share)?;
            if counted.is_empty() {
                at += 1;
                continue;
            }
            ensure!(counted.keys().eq([**cause]), "{cause}: {counted:?}");
            named(cause, begin.elapsed());
            waiting.swap_remove(at);
        }
        Ok(waiting.is_empty().then_some(()))
    })?;
    for (share, cause, ..) in &shares {
        let path = format!("ipsec-shares/{}", text(share, "id")?);
        let seen = world.gateway.wait(&world.lab, &path, "not ready", PATIENCE, |s| {
            s["ready"] == false && s["statusDetail"]["reason"] == "TargetUnreachable"
        })?;
        // Each cause has its own cure, in the status and in a check.
        let reason = FailureReason::ALL.into_iter().find(|reason| reason.as_str() == *cause);
        let advice = reason.context("no such reason")?.advice();
        let message = text(&seen["statusDetail"], "message")?;
        ensure!(message.ends_with(advice), "{cause}: {message}");
        let check = world.gateway.api.post(&world.gateway.at(&format!("{path}/check")), &json!({}))?;
        let told = text(&check["hops"][4], "advice")?.to_lowercase();
        ensure!(told == advice.to_lowercase(), "{cause}: {told}");
    }
    world.end()
}

#[test]
fn a_connection_without_an_agent_or_beyond_a_rule_is_counted_by_the_cause() -> Result<()> {
    let world = world(MANY)?;
    let mut published = world.publish(echo)?;
    let tunnel = &published.tunnel;
    let enter = |port| connect(&world.outside, door(tunnel, port)?, PATIENCE);

    let excluded = world.share("excluded", tunnel, &published.zid, world.target(7001), 9001)?;
    world.patch(&excluded, &json!({"allowedSources": ["10.0.0.9/32"]}))?;
    let begin = Instant::now();
    drop(enter(9001));
    failed(&world, &excluded, "source-not-allowed", begin)?;

    let full = world.share("full", tunnel, &published.zid, world.target(7001), 9002)?;
    world.patch(&full, &json!({"maxConnections": 1}))?;
    let mut first = enter(9002)?;
    exchange(&mut first, b"the only place")?;
    let begin = Instant::now();
    drop(enter(9002));
    failed(&world, &full, "share-full", begin)?;

    published.agent.process.kill()?;
    world.lab.until("the agent is gone", PATIENCE, || {
        Ok(world.gateway.list("agents")?.iter().any(|agent| agent["status"] == "OFFLINE").then_some(()))
    })?;
    let begin = Instant::now();
    drop(enter(9000));
    failed(&world, &published.share, "no-agent", begin)?;
    world.end()
}

#[test]
fn a_full_tunnel_and_a_full_gateway_are_counted_as_such() -> Result<()> {
    let world = world(FEW)?;
    echo(&world.private, world.target(7001))?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnels = [world.tunnel(0)?, world.tunnel(1)?, world.tunnel(2)?];
    let mut open = Vec::new();
    // A share has three quarters of its tunnel's connections, and a tunnel half of the gateway's.
    for (n, tunnel) in tunnels[..2].iter().enumerate() {
        for port in [9000, 9001] {
            let share = world.share(&format!("share-{n}-{port}"), tunnel, &zid, world.target(7001), port)?;
            open.extend(fill(&world.outside, door(tunnel, port)?, 1000)?);
            let reason = if port == 9000 { "share-full" } else { "tunnel-full" };
            failed(&world, &share, reason, Instant::now())?;
        }
    }
    let share = world.share("no-place", &tunnels[2], &zid, world.target(7001), 9000)?;
    open.extend(fill(&world.outside, door(&tunnels[2], 9000)?, 1000)?);
    failed(&world, &share, "gateway-full", Instant::now())?;
    drop(open);
    world.end()
}

#[test]
fn two_tunnels_of_one_frontdoor_have_half_beside_another() -> Result<()> {
    let world = world(FEW)?;
    echo(&world.private, world.target(7001))?;
    let (_agent, zid) = world.agent("agent")?;
    let body = json!({"organizationId": "other", "defaultNamespaceName": "b", "ipsecSharesEnabled": true});
    let other = world.gateway.api.post("/frontdoor/v2", &body)?;
    let body = json!({"name": "theirs", "locationId": "local", "peerPublicIp": "203.0.113.99",
        "peerCidr": "10.0.0.0/16"});
    let path = format!("/frontdoor/v2/{}/ipsec-tunnels", text(&other, "id")?);
    world.gateway.api.post(&path, &body)?;
    let tunnels = [world.tunnel(0)?, world.tunnel(1)?];
    let mut open = Vec::new();
    for port in [9000, 9001] {
        world.share(&format!("first-{port}"), &tunnels[0], &zid, world.target(7001), port)?;
        open.extend(fill(&world.outside, door(&tunnels[0], port)?, 1000)?);
    }
    let second = world.share("second", &tunnels[1], &zid, world.target(7001), 9000)?;
    let begin = Instant::now();
    let more = fill(&world.outside, door(&tunnels[1], 9000)?, 1000)?;
    anyhow::ensure!(more.is_empty(), "{} beside {} of one Frontdoor", more.len(), open.len());
    failed(&world, &second, "frontdoor-full", begin)?;
    drop(open);
    world.end()
}
