//! Faults of the line between a site and the gateway: each is told for what it is.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::named;

use crate::harness::{
    GATEWAY, PATIENCE, World,
    targets::{ask, here},
    text,
    user::User,
};

/// From the cut to the decision. `make named` measures it against the promise of five seconds; a test that shares two processors
/// with others may be late without a fault.
const DECIDED: Duration = Duration::from_secs(8);

/// From the begin of an attempt to its fault.
const TOLD: Duration = Duration::from_secs(10);

/// From a packet of an unknown sender to its entry: the gateway counts every three seconds. Longer than the promise for the same
/// reason.
const NAMED: Duration = Duration::from_secs(8);

/// The bound of one attempt of a client.
const TRY: Duration = Duration::from_secs(1);

fn path(tunnel: &Value) -> Result<String> {
    Ok(format!("ipsec-tunnels/{}", text(tunnel, "id")?))
}

fn warnings(tunnel: &Value) -> Vec<&str> {
    let all = tunnel["connection"]["warnings"].as_array().into_iter().flatten();
    all.filter_map(|warning| warning["reason"].as_str()).collect()
}

#[test]
fn a_line_that_is_cut_is_told_within_five_seconds_and_recovers() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(here)?;
    let site = world.connected_site(0, &published.tunnel)?;
    assert_eq!(ask(&site.namespace, published.door, PATIENCE)?, "here");
    let path = path(&published.tunnel)?;
    world.gateway.wait(&world.lab, &path, "ready", PATIENCE, |t| t["ready"] == true)?;

    world.cut("site0")?;
    let cut = Instant::now();
    world.gateway.wait(&world.lab, &path, "suspected", DECIDED, |t| !warnings(t).is_empty())?;
    named("PeerSuspected", cut.elapsed());
    let left = DECIDED.saturating_sub(cut.elapsed());
    let silent = world.gateway.wait(&world.lab, &path, "not ready", left, |t| t["ready"] == false)?;
    named("PeerSilent", cut.elapsed());
    ensure!(warnings(&silent) == ["PeerSilent"] && silent["connection"]["state"] == "UP", "{silent}");
    let share = format!("ipsec-shares/{}", text(&published.share, "id")?);
    let is_down = |s: &Value| s["ready"] == false && s["statusDetail"]["reason"] == "PeerDown";
    world.gateway.wait(&world.lab, &share, "the share is not ready", PATIENCE, is_down)?;

    let check = world.gateway.api.post(&world.gateway.at(&format!("{share}/check")), &json!({}))?;
    let hops = check["hops"].as_array().context("no hops")?;
    let failed = hops.iter().find(|hop| hop["state"] == "FAILED").context("no hop fails")?;
    ensure!(failed["hop"] == "ikeSa" && failed["reason"] == "PeerDown", "{check}");

    world.restore()?;
    let is_back = |t: &Value| t["ready"] == true && warnings(t).is_empty();
    world.gateway.wait(&world.lab, &path, "ready again", PATIENCE, is_back)?;
    assert_eq!(ask(&site.namespace, published.door, PATIENCE)?, "here");
    world.end()
}

#[test]
fn a_line_that_drops_udp_4500_is_told_for_either_initiator() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(here)?;
    let path = path(&published.tunnel)?;
    world.filter("udp dport 4500 drop")?;
    let mut site = world.site(0)?;
    let begin = Instant::now();
    let config = world.vpn_config(&published.tunnel)?;
    site.start(&world.lab, &config)?;
    let is_told = |t: &Value| t["connection"]["lastError"]["reason"] == "NatTraversalBlocked";
    let told = world.gateway.wait(&world.lab, &path, "UDP 4500 is blocked", TOLD, is_told)?;
    named("NatTraversalBlocked", begin.elapsed());
    let message = text(&told["connection"]["lastError"], "message")?;
    ensure!(message.starts_with("UDP 500 arrives from the peer, UDP 4500 does not"), "{message}");

    // An attempt of the address that was the peer's is none of the tunnel's: it ends, long before charon gives it up.
    let is_at_rest = |t: &Value| t["connection"]["state"] == "DOWN" && t["connection"]["lastError"].is_null();
    let address = told["peerPublicIp"].clone();
    world
        .gateway
        .wait(&world.lab, &path, "an attempt", TOLD, |t| t["connection"]["state"] == "CONNECTING")?;
    world.gateway.api.patch(&world.gateway.at(&path), &json!({"peerPublicIp": "203.0.113.77"}))?;
    world.gateway.wait(&world.lab, &path, "the attempt is ended", TOLD, is_at_rest)?;
    world.gateway.api.patch(&world.gateway.at(&path), &json!({"peerPublicIp": address}))?;
    site.stop()?;

    // The device only responds. Any change of the tunnel clears the error.
    let passive = config.replace("start_action = start", "start_action = none");
    site.start(&world.lab, &passive)?;
    world.gateway.api.patch(&world.gateway.at(&path), &json!({"initiate": true}))?;
    let is_called = |t: &Value| {
        let error = &t["connection"]["lastError"];
        let message = error["message"].as_str().unwrap_or_default();
        is_told(t) && message.starts_with("the peer answers IKE on UDP 500 and not on UDP 4500")
    };
    world.gateway.wait(&world.lab, &path, "UDP 4500 is blocked for the gateway", 3 * TOLD, is_called)?;
    world.restore()?;
    let is_up = |t: &Value| t["ready"] == true && t["connection"]["lastError"].is_null();
    world.gateway.wait(&world.lab, &path, "up", PATIENCE, is_up)?;
    world.end()
}

#[test]
fn a_line_that_drops_the_gateways_answers_is_told() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(here)?;
    world.filter("oifname site0 udp sport 500 drop")?;
    let mut site = world.site(0)?;
    let begin = Instant::now();
    site.start(&world.lab, &world.vpn_config(&published.tunnel)?)?;
    let is_told = |t: &Value| t["connection"]["lastError"]["reason"] == "AnswersLost";
    world.gateway.wait(&world.lab, &path(&published.tunnel)?, "answers are lost", TOLD, is_told)?;
    named("AnswersLost", begin.elapsed());
    world.end()
}

#[test]
fn a_device_whose_address_changed_is_told_with_its_new_address() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(here)?;
    let site = world.connected_site(0, &published.tunnel)?;
    assert_eq!(ask(&site.namespace, published.door, PATIENCE)?, "here");
    // The provider gives the site's line another address.
    world.filter("iifname site0 ip saddr set 192.0.2.77")?;
    let moved = Instant::now();
    let path = path(&published.tunnel)?;
    let told = world.lab.until("the new address is told", 2 * TOLD, || {
        // A client that tries.
        let _ = ask(&site.namespace, published.door, TRY);
        let tunnel = world.gateway.api.get(&world.gateway.at(&path))?;
        Ok((tunnel["connection"]["lastError"]["reason"] == "PeerAddressDiffers").then_some(tunnel))
    })?;
    named("PeerAddressDiffers", moved.elapsed());
    let message = text(&told["connection"]["lastError"], "message")?;
    let expected = format!("sends from 192.0.2.77, and peerPublicIp is {}", World::peer(0));
    ensure!(message.contains(&expected), "{message}");
    world.restore()?;
    world.end()
}

#[test]
fn ike_from_an_address_of_no_tunnel_is_counted_and_named() -> Result<()> {
    let world = World::with_sites(2).start()?;
    world.tunnel(0)?;
    let site = world.site(1)?.namespace;
    // What a device that starts sends first.
    let socket = site.enter(|| UdpSocket::bind((World::peer(1), 500)))??;
    site.enter(|| socket.send_to(&[0x5a; 400], (GATEWAY, 500)))??;
    let sent = Instant::now();
    let all = "/frontdoor/v2/unknown-peers";
    let seen = world.lab.until("the sender is listed", NAMED, || {
        let page = world.gateway.api.get(all)?;
        Ok(page["content"].as_array().filter(|all| !all.is_empty()).map(|all| all[0].clone()))
    })?;
    named("The device reports no answer, not even an ICMP error.", sent.elapsed());
    let address = World::peer(1).to_string();
    ensure!(seen["address"] == address && seen["port"] == 500 && seen["packets"] == 1, "{seen}");
    let line = format!("IKE from {address}, which is no tunnel's peerPublicIp");
    ensure!(world.gateway.process.said().contains(&line), "{}", world.gateway.process.tail());

    let user = User::new(&world, "user")?;
    let token = world.gateway.data.join("admin.token");
    let as_admin = format!("--server {} --token-file {}", world.url(), token.display());
    let status = user.says_with(5, &format!("status {as_admin}"))?;
    ensure!(
        status.contains(&format!("IKE from {address} (port 500), which is no tunnel's peerPublicIp")),
        "{status}"
    );
    let listed = user.says(&format!("tunnel unknown-peers {as_admin} --json address"))?;
    ensure!(listed.contains(&address), "{listed}");
    world.tunnel(1)?;
    let listed = user.says(&format!("tunnel unknown-peers {as_admin} --json address"))?;
    ensure!(!listed.contains(&address), "it is a tunnel's peer now: {listed}");
    world.end()
}

#[test]
fn a_connection_through_which_nothing_has_come_says_so_until_something_does() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(here)?;
    let path = path(&published.tunnel)?;
    // IKE has zeros where ESP has its SPI.
    world.filter("iifname site0 udp dport 4500 @th,64,32 != 0 drop\n iifname site0 ip protocol esp drop")?;
    let site = world.connected_site(0, &published.tunnel)?;
    let begin = Instant::now();
    ensure!(ask(&site.namespace, published.door, TRY).is_err(), "ESP passes");
    let is_unused = |t: &Value| warnings(t) == ["NoTrafficReceived"];
    let told = world.gateway.wait(&world.lab, &path, "unused", 2 * PATIENCE, is_unused)?;
    named("NoTrafficReceived", begin.elapsed());
    ensure!(told["ready"] == true && told["connection"]["lastError"].is_null(), "{told}");
    world.restore()?;
    assert_eq!(ask(&site.namespace, published.door, PATIENCE)?, "here");
    world.gateway.wait(&world.lab, &path, "used", PATIENCE, |t| warnings(t).is_empty())?;
    world.end()
}
