//! Rotating a tunnel's key while the tunnel is up: both keys work during the grace period, then only the new one.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::Site;

use crate::harness::{PATIENCE, World, text};

/// A grace period, in seconds, that is longer than this test.
const LONG: u32 = 3600;
/// A grace period, in seconds, that is short but long enough for the change to take effect.
const SHORT: u32 = 2;

/// Rotates the key and waits until the gateway has the new one.
fn rotate(world: &World, tunnel: &Value, grace: u32) -> Result<Value> {
    let path = format!("ipsec-tunnels/{}", text(tunnel, "id")?);
    let changed =
        world.gateway.api.post(&world.gateway.at(&format!("{path}/psk")), &json!({"graceSeconds": grace}))?;
    ensure!(changed.get("preSharedKey").is_none(), "the answer contains a key: {changed}");
    world.gateway.wait(&world.lab, &path, "DEPLOYED", PATIENCE, |t| t["status"] == "DEPLOYED")
}

/// Reconnects the site. Two keys may need two attempts, since the gateway authenticates with one of them at a time.
fn reconnects(world: &World, site: &Site, what: &str) -> Result<()> {
    world.lab.until(what, PATIENCE, || Ok(site.try_again()?.then_some(())))
}

/// The unique id of the IKE SA at the site.
fn sa(site: &Site) -> Result<String> {
    let sas = site.swanctl(&["--list-sas"])?;
    let id = sas.split_once(": #").and_then(|(_, rest)| rest.split_once(','));
    Ok(id.with_context(|| format!("no SA: {sas}"))?.0.to_owned())
}

#[test]
fn both_keys_work_during_the_grace_period_and_the_tunnel_stays_up() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let tunnel = world.tunnel(0)?;
    let first = world.vpn_config(&tunnel)?;
    let site = world.connected_site(0, &tunnel)?;
    let before = sa(&site)?;

    let rotated = rotate(&world, &tunnel, LONG)?;
    let second = world.vpn_config(&tunnel)?;
    ensure!(second != first, "the configuration has the old key");
    ensure!(rotated["previousKeyUntil"].is_string(), "{rotated}");
    ensure!(rotated["connection"]["state"] == "UP" && sa(&site)? == before, "the tunnel was interrupted");
    reconnects(&world, &site, "the site reconnects with the old key")?;
    site.load(&second)?;
    reconnects(&world, &site, "the site reconnects with the new key")?;

    // Rotate again with a short grace period: the first key must not outlive the second.
    let in_use = sa(&site)?;
    rotate(&world, &tunnel, SHORT)?;
    let path = format!("ipsec-tunnels/{}", text(&tunnel, "id")?);
    world.gateway.wait(&world.lab, &path, "no old key", PATIENCE, |t| t.get("previousKeyUntil").is_none())?;
    ensure!(sa(&site)? == in_use, "the tunnel was interrupted");
    for (old, what) in [(&second, "the second key is refused"), (&first, "the first key is refused")] {
        site.load(old)?;
        world.lab.until(what, PATIENCE, || Ok((!site.try_again()?).then_some(())))?;
        // The key is refused repeatedly, not only while the gateway tries another key.
        ensure!(!site.try_again()? && !site.try_again()?, "the site connected although {what}");
    }
    site.load(&world.vpn_config(&tunnel)?)?;
    reconnects(&world, &site, "the site reconnects with the third key")?;

    // Every read of a key is recorded as an execution.
    let read = world.gateway.api.get(&world.gateway.at("executions?action=READ_KEY&actor=admin"))?;
    assert_eq!(read["totalElements"], 4, "{read}");
    drop(site);
    world.end()
}
