//! The firewall of the gateway's host: what packets show is told, of the tunnel that it concerns, and nothing else is.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{Namespace, named};

use crate::harness::{
    PATIENCE, World, door,
    targets::{ask, here},
    text,
};

/// The longest time until a fault is told after the first packet that it concerns.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// The bound of one attempt; attempts repeat until one succeeds.
const TRY: Duration = Duration::from_secs(1);

/// The chain of a firewall, with `rules`.
fn firewall(host: &Namespace, policy: &str, rules: &str) -> Result<()> {
    host.nft(&format!(
        "table ip filter {{}}\ndelete table ip filter\ntable ip filter {{\n chain FORWARD {{\n \
         type filter hook forward priority 0; policy {policy};\n {rules}\n }}\n}}\n"
    ))
}

fn path(tunnel: &Value) -> Result<String> {
    Ok(format!("ipsec-tunnels/{}", text(tunnel, "id")?))
}

fn is_blocked(tunnel: &Value) -> bool {
    tunnel["status"] == "ERROR"
        && tunnel["connection"]["lastError"]["reason"] == "GatewayFailed"
        && tunnel["statusDetail"]["reason"] == "TunnelFailed"
}

#[test]
fn rules_of_any_kind_are_no_fault_while_packets_pass() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let peer = World::peer(0);
    // No rule names the tunnels' links.
    let rules = format!("ip saddr {peer} meta mark 0 accept\n ip daddr {peer} ip ttl > 1 accept");
    let begin = Instant::now();
    firewall(&world.outside, "drop", &rules)?;
    // It cannot be known before the first packet.
    world.lab.until("the log says that the chain may drop", SEEN_WITHIN, || {
        let said = world.gateway.process.said();
        Ok(said.contains("drops in ip filter FORWARD what it does not know").then_some(()))
    })?;
    named("The log says that a firewall of the host drops what it does not know.", begin.elapsed());
    let tunnel = world.tunnel(0)?;
    let site = world.connected_site(0, &tunnel)?;
    let (_agent, door) = world.greeting(&tunnel)?;
    assert_eq!(ask(&site.namespace, door, PATIENCE)?, "here");
    let share = world.gateway.list("ipsec-shares")?.pop().context("no share")?;
    let check = world.gateway.at(&format!("ipsec-shares/{}/check", text(&share, "id")?));
    let told = world.gateway.api.post(&check, &json!({}))?;
    assert_eq!(told["ok"], true, "{told}");
    let events = world.events("ipsec-tunnel", text(&tunnel, "id")?)?;
    ensure!(!events.is_empty() && !events.iter().any(|event| event["status"] == "ERROR"), "{events:#?}");
    let said = world.gateway.process.said();
    ensure!(!said.contains("drops tunnels' packets"), "{said}");
    world.end()
}

#[test]
fn a_chain_that_admits_only_answers_is_told_where_the_gateway_initiates() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let rules = "ct state established,related accept\n iifname \"wan\" udp dport { 500, 4500 } accept";
    firewall(&world.outside, "drop", rules)?;
    let made = world.tunnel(0)?;
    let device = world.vpn_config(&made)?;
    world.gateway.api.patch(&world.gateway.at(&path(&made)?), &json!({"initiate": true}))?;
    world.gateway.wait(&world.lab, &path(&made)?, "blocked", SEEN_WITHIN, is_blocked)?;
    // Where the site initiates, the same rules admit all that there is.
    world.gateway.api.patch(&world.gateway.at(&path(&made)?), &json!({"initiate": false}))?;
    let mut site = world.site(0)?;
    world.connect(&mut site, &made, &device)?;
    let is_well = |t: &Value| t["status"] == "DEPLOYED" && t["connection"].get("lastError").is_none();
    world.gateway.wait(&world.lab, &path(&made)?, "well", SEEN_WITHIN, is_well)?;
    world.end()
}

#[test]
fn one_blocked_tunnel_is_told_and_no_other_and_its_new_shares_are_bound() -> Result<()> {
    let world = World::with_sites(2).start()?;
    let tunnels = [world.tunnel(0)?, world.tunnel(1)?];
    let (_agent, zid) = world.agent("agent")?;
    here(&world.private, world.target(7001))?;
    world.share("here", &tunnels[0], &zid, world.target(7001), 9000)?;
    let sites = [world.connected_site(0, &tunnels[0])?, world.connected_site(1, &tunnels[1])?];
    // No chain drops by default.
    firewall(&world.outside, "accept", &format!("ip saddr {} drop", World::peer(1)))?;
    let told = world.lab.until("the second tunnel is blocked", SEEN_WITHIN, || {
        // The client that complains.
        let refused = ask(&sites[1].namespace, door(&tunnels[1], 9001)?, TRY / 2);
        ensure!(refused.is_err(), "{refused:?}");
        let told = world.gateway.api.get(&world.gateway.at(&path(&tunnels[1])?))?;
        Ok(is_blocked(&told).then_some(told))
    })?;
    ensure!(told["connection"]["lastError"]["message"].to_string().contains("ip filter FORWARD"), "{told}");
    let other = world.gateway.api.get(&world.gateway.at(&path(&tunnels[0])?))?;
    ensure!(other["status"] == "DEPLOYED" && other["connection"].get("lastError").is_none(), "{other}");
    assert_eq!(ask(&sites[0].namespace, door(&tunnels[0], 9000)?, PATIENCE)?, "here");

    let body = json!({"name": "new", "ipsecTunnelId": tunnels[1]["id"], "envZId": zid,
        "target": world.target(7001).to_string(), "ingressPort": 9001});
    let share = world.gateway.api.post(&world.gateway.at("ipsec-shares"), &body)?;
    let inside = world.tunnel_namespace(&tunnels[1])?;
    world.lab.until("the new share's port is bound", SEEN_WITHIN, || {
        let out = inside.command("ss").args(["-Hltn", "sport", "= 9001"]).output()?;
        Ok((!out.stdout.is_empty()).then_some(()))
    })?;
    let share = format!("ipsec-shares/{}", text(&share, "id")?);
    world.gateway.wait(&world.lab, &share, "told", SEEN_WITHIN, |s| {
        s["ready"] == false && s["statusDetail"]["reason"] == "TunnelNotReady"
    })?;

    world.outside.nft("flush chain ip filter FORWARD\n")?;
    world
        .gateway
        .wait(&world.lab, &path(&tunnels[1])?, "DEPLOYED", PATIENCE, |t| t["status"] == "DEPLOYED")?;
    world.gateway.wait(&world.lab, &share, "DEPLOYED", SEEN_WITHIN, |s| s["status"] == "DEPLOYED")?;
    assert_eq!(ask(&sites[1].namespace, door(&tunnels[1], 9001)?, PATIENCE)?, "here");
    world.end()
}

#[test]
fn a_look_at_the_hosts_rules_that_hangs_or_never_ends_changes_no_tunnel() -> Result<()> {
    for (name, answer) in [("hangs", "exec sleep 60"), ("endless", "exec yes")] {
        let mut world = World::with_sites(1).start()?;
        world.gateway.process.stop(PATIENCE)?;
        // Listings in JSON are the looks; all else is the real program.
        let lines = format!("case \"$*\" in -j*) {answer};; esac\nexec /usr/sbin/nft \"$@\"");
        world.gateway = world.start_with("nft", &lines)?;
        let begin = Instant::now();
        firewall(&world.outside, "drop", "meta l4proto udp accept")?;
        world.lab.until("the failure is logged", PATIENCE, || {
            let said = world.gateway.process.said();
            Ok(said.contains("cannot see whether the host's firewall drops").then_some(()))
        })?;
        named(
            "The log says that the gateway cannot see whether the host's firewall drops packets.",
            begin.elapsed(),
        );
        let tunnel = world.tunnel(0)?;
        let site = world.connected_site(0, &tunnel)?;
        let (_agent, door) = world.greeting(&tunnel)?;
        assert_eq!(ask(&site.namespace, door, PATIENCE)?, "here", "{name}");
        let events = world.events("ipsec-tunnel", text(&tunnel, "id")?)?;
        ensure!(
            !events.is_empty() && !events.iter().any(|event| event["status"] == "ERROR"),
            "{name}: {events:#?}"
        );
        world.end()?;
    }
    Ok(())
}
