//! Tunnels and shares that are disabled: nothing of them is served, and all of them is kept.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::{Value, json};
use wicketgate_lab::{Namespace, named};

use crate::harness::{
    AT_ONCE, PATIENCE, World, door,
    sas::Sas,
    targets::{connect, echo, exchange, is_reset},
    text,
};

/// Changes `enabled` and waits for the status that follows.
fn set(world: &World, kind: &str, it: &Value, enabled: bool) -> Result<Value> {
    let path = format!("{kind}/{}", text(it, "id")?);
    let answer = world.gateway.api.patch(&world.gateway.at(&path), &json!({"enabled": enabled}))?;
    assert_eq!((&answer["enabled"], &answer["status"]), (&json!(enabled), &json!("NEW")));
    let status = if enabled { "DEPLOYED" } else { "DISABLED" };
    world.gateway.wait(&world.lab, &path, status, PATIENCE, |it| it["status"] == status)
}

/// That nothing listens: connections are reset at once.
fn is_closed(site: &Namespace, door: SocketAddr) -> Result<()> {
    let begin = Instant::now();
    match site.enter(|| TcpStream::connect_timeout(&door, PATIENCE))?.as_ref().map_err(std::io::Error::kind) {
        Err(ErrorKind::ConnectionRefused) if begin.elapsed() < AT_ONCE => Ok(()),
        other => bail!("not closed: {other:?} after {:?}", begin.elapsed()),
    }
}

/// The hop of a check with its state and reason.
fn hop(world: &World, share: &Value, name: &str) -> Result<(String, String)> {
    let path = format!("ipsec-shares/{}/check", text(share, "id")?);
    let check = world.gateway.api.post(&world.gateway.at(&path), &json!({}))?;
    assert_eq!(check["ok"], false);
    let hops = check["hops"].as_array().cloned().unwrap_or_default();
    let hop = hops.into_iter().find(|hop| hop["hop"] == name).unwrap_or_default();
    Ok((text(&hop, "state")?.to_owned(), hop["reason"].as_str().unwrap_or_default().to_owned()))
}

#[test]
fn a_disabled_share_is_closed_across_restarts_until_it_is_enabled() -> Result<()> {
    let mut world = World::with_sites(1).start()?;
    echo(&world.private, world.target(7001))?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    let share = world.share("echo", &tunnel, &zid, world.target(7001), 9000)?;
    world.share("other", &tunnel, &zid, world.target(7001), 9001)?;
    let (door, other_door) = (door(&tunnel, 9000)?, door(&tunnel, 9001)?);
    let site = world.connected_site(0, &tunnel)?;
    let mut open = connect(&site.namespace, door, PATIENCE)?;
    let mut other = connect(&site.namespace, other_door, PATIENCE)?;
    exchange(&mut open, b"before")?;
    exchange(&mut other, b"before")?;

    let begin = Instant::now();
    let disabled = set(&world, "ipsec-shares", &share, false)?;
    named("Disabled", begin.elapsed());
    assert_eq!(
        (&disabled["ready"], &disabled["statusDetail"]["reason"]),
        (&json!(false), &json!("Disabled"))
    );
    for key in ["name", "ingressPort", "target"] {
        assert_eq!(disabled[key], share[key]);
    }
    is_reset(open)?;
    is_closed(&site.namespace, door)?;
    exchange(&mut other, b"the other share is served")?;
    let failed = |reason: &str| ("FAILED".to_owned(), reason.to_owned());
    assert_eq!(hop(&world, &share, "listener")?, failed("Disabled"));
    // Its port is no port without a share, and its traffic of before is kept.
    world.carried(&share, |sum| sum("rx") == 6 && sum("connections") == 1)?;

    world.gateway.process.kill()?;
    world.restart()?;
    let share_path = format!("ipsec-shares/{}", text(&share, "id")?);
    let other_is_back = || Ok(connect(&site.namespace, other_door, PATIENCE).ok().map(drop));
    world.lab.until("the other share is served again", PATIENCE, other_is_back)?;
    is_closed(&site.namespace, door)?;
    let after = world.gateway.api.get(&world.gateway.at(&share_path))?;
    assert_eq!((&after["status"], &after["updatedAt"]), (&json!("DISABLED"), &disabled["updatedAt"]));
    let statuses: Vec<_> =
        world.events("ipsec-share", text(&share, "id")?)?.iter().map(|e| e["status"].clone()).collect();
    let mut since = statuses.iter().skip_while(|status| **status != "DISABLED").peekable();
    assert!(since.peek().is_some() && since.all(|status| *status == "DISABLED"), "{statuses:?}");

    set(&world, "ipsec-shares", &share, true)?;
    exchange(&mut connect(&site.namespace, door, PATIENCE)?, b"again")?;
    // A share that is disabled can be deleted.
    set(&world, "ipsec-shares", &share, false)?;
    drop(site);
    world.end()
}

#[test]
fn an_expired_share_is_closed_until_its_time_is_moved_or_cleared() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(echo)?;
    let (share, door) = (&published.share, published.door);
    let site = world.connected_site(0, &published.tunnel)?;
    let path = format!("ipsec-shares/{}", text(share, "id")?);
    let past = json!({"expiresAt": "2026-01-01T00:00:00Z"});
    let refused = world.gateway.api.call("PATCH", &world.gateway.at(&path), Some(&past))?;
    assert!(!refused.is_success());
    assert_eq!(refused.json()?["message"], "expiresAt must be in the future");

    let end = jiff::Timestamp::now() + Duration::from_secs(3);
    let expiring = world.patch(share, &json!({"expiresAt": end.to_string()}))?;
    assert_eq!(expiring["ready"], true);
    let mut open = connect(&site.namespace, door, PATIENCE)?;
    exchange(&mut open, b"before")?;
    is_reset(open)?;
    assert!(jiff::Timestamp::now() >= end, "it was closed before its time");
    is_closed(&site.namespace, door)?;
    let begin = Instant::now();
    let is_told =
        |s: &Value| s["status"] == "ERROR" && s["statusDetail"]["reason"] == "Expired" && s["ready"] == false;
    world.gateway.wait(&world.lab, &path, "expired", PATIENCE, is_told)?;
    named("Expired", begin.elapsed());
    assert_eq!(hop(&world, share, "listener")?, ("FAILED".to_owned(), "Expired".to_owned()));

    // A change that leaves the time as it is opens nothing.
    world.gateway.api.patch(&world.gateway.at(&path), &json!({"description": "was temporary"}))?;
    world.gateway.wait(&world.lab, &path, "expired still", PATIENCE, is_told)?;
    is_closed(&site.namespace, door)?;
    for later in [json!("2999-12-31T23:59:59Z"), Value::Null] {
        world.patch(share, &json!({"expiresAt": later}))?;
        exchange(&mut connect(&site.namespace, door, PATIENCE)?, b"again")?;
    }
    drop(site);
    world.end()
}

#[test]
fn a_disabled_tunnel_has_no_sa_and_refuses_its_peer_until_it_is_enabled() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(echo)?;
    let (tunnel, share, door) = (&published.tunnel, &published.share, published.door);
    let config = world.vpn_config(tunnel)?;
    let mut site = world.connected_site(0, tunnel)?;
    let mut open = connect(&site.namespace, door, PATIENCE)?;
    exchange(&mut open, b"before")?;

    let disabled = set(&world, "ipsec-tunnels", tunnel, false)?;
    assert_eq!(
        (&disabled["ready"], &disabled["statusDetail"]["reason"]),
        (&json!(false), &json!("Disabled"))
    );
    assert_eq!(disabled["connection"]["state"], "DOWN");
    for key in ["name", "loadBalancerIp", "peerPublicIp"] {
        assert_eq!(disabled[key], tunnel[key]);
    }
    // The end of its connections passed through the SAs before those ended, of which the device was told.
    is_reset(open)?;
    let gone = || Ok((Sas::of(&site)?.ike.is_empty()).then_some(()));
    world.lab.until("the device's SAs are deleted", PATIENCE, gone)?;
    assert!(world.tunnel_namespaces()?.is_empty(), "a namespace of the tunnel is left");
    let share_path = format!("ipsec-shares/{}", text(share, "id")?);
    let is_told = |s: &Value| s["status"] == "DISABLED" && s["statusDetail"]["reason"] == "Disabled";
    world.gateway.wait(&world.lab, &share_path, "DISABLED with its tunnel", PATIENCE, is_told)?;
    let failed = ("FAILED".to_owned(), "Disabled".to_owned());
    assert_eq!((hop(&world, share, "tunnel")?, hop(&world, share, "listener")?), (failed.clone(), failed));

    // The device gets no answer, and is no unknown peer.
    let name = site.swanctl(&["--list-conns"])?;
    let name = name.lines().find_map(|l| l.trim().split_once(": TUNNEL")).map(|(name, _)| name.to_owned());
    assert!(site.swanctl(&["--initiate", "--child", &name.unwrap_or_default(), "--timeout", "4"]).is_err());
    assert_eq!(world.gateway.api.get("/frontdoor/v2/unknown-peers")?["totalElements"], 0);
    // Its configuration can be fetched, and it holds the same key.
    assert_eq!(world.vpn_config(tunnel)?, config);

    set(&world, "ipsec-tunnels", tunnel, true)?;
    site.stop()?;
    world.connect(&mut site, tunnel, &config)?;
    world.gateway.deployed(&world.lab, "ipsec-shares", text(share, "id")?)?;
    exchange(&mut connect(&site.namespace, door, PATIENCE)?, b"again")?;
    drop(site);
    world.end()
}

#[test]
fn a_frontdoor_without_shares_serves_none_until_they_are_enabled_again() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(echo)?;
    let (tunnel, share, door) = (&published.tunnel, &published.share, published.door);
    let site = world.connected_site(0, tunnel)?;
    let mut open = connect(&site.namespace, door, PATIENCE)?;
    exchange(&mut open, b"before")?;
    let frontdoor = world.gateway.at("");
    let switch = |on: bool| {
        world.gateway.api.patch(frontdoor.trim_end_matches('/'), &json!({"ipsecSharesEnabled": on}))
    };
    let path = |kind: &str, it: &Value| anyhow::Ok(format!("{kind}/{}", text(it, "id")?));
    let (tunnel_path, share_path) = (path("ipsec-tunnels", tunnel)?, path("ipsec-shares", share)?);

    switch(false)?;
    is_reset(open)?;
    let gone = || Ok((Sas::of(&site)?.ike.is_empty()).then_some(()));
    world.lab.until("the device's SAs are deleted", PATIENCE, gone)?;
    let is_removed = || Ok(world.tunnel_namespaces()?.is_empty().then_some(()));
    world.lab.until("the tunnel's namespace is removed", PATIENCE, is_removed)?;

    switch(true)?;
    world
        .gateway
        .wait(&world.lab, &tunnel_path, "DEPLOYED again", PATIENCE, |it| it["status"] == "DEPLOYED")?;
    site.connected(&world.lab, PATIENCE)?;
    world.gateway.wait(&world.lab, &share_path, "ready again", PATIENCE, |it| it["ready"] == true)?;
    exchange(&mut connect(&site.namespace, door, PATIENCE)?, b"again")?;

    switch(false)?;
    for path in [&share_path, &tunnel_path] {
        world.gateway.api.delete(&world.gateway.at(path))?;
    }
    switch(true)?;
    for path in [&share_path, &tunnel_path] {
        world.gateway.wait(&world.lab, path, "DELETED", PATIENCE, |it| it["status"] == "DELETED")?;
    }
    drop(site);
    world.end()
}
