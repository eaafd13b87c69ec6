//! A tunnel's key is changed while the tunnel is up: both keys work for the time of grace, and then the new one only.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::Site;

use crate::harness::{PATIENCE, World, text};

/// Longer than this test may take.
const LONG: u32 = 3600;
/// Short, and long enough for the change to be served.
const SHORT: u32 = 2;

/// Changes the key, and waits until the gateway has the new one.
fn rotate(world: &World, tunnel: &Value, grace: u32) -> Result<Value> {
    let path = format!("ipsec-tunnels/{}", text(tunnel, "id")?);
    let changed =
        world.gateway.api.post(&world.gateway.at(&format!("{path}/psk")), &json!({"graceSeconds": grace}))?;
    ensure!(changed.get("preSharedKey").is_none(), "a key is shown: {changed}");
    world.gateway.wait(&world.lab, &path, "DEPLOYED", PATIENCE, |t| t["status"] == "DEPLOYED")
}

/// Ends what is up, and comes up again. Two keys may take two tries: the gateway proves one of them at a time.
fn comes_up_again(world: &World, site: &Site, what: &str) -> Result<()> {
    world.lab.until(what, PATIENCE, || Ok(site.try_again()?.then_some(())))
}

/// The IKE SA's unique id, as the site counts them.
fn sa(site: &Site) -> Result<String> {
    let sas = site.swanctl(&["--list-sas"])?;
    let id = sas.split_once(": #").and_then(|(_, rest)| rest.split_once(','));
    Ok(id.with_context(|| format!("no SA: {sas}"))?.0.to_owned())
}

#[test]
fn both_keys_work_for_a_while_and_the_tunnel_stays_up() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let tunnel = world.tunnel(0)?;
    let first = world.vpn_config(&tunnel)?;
    let site = world.connected_site(0, &tunnel)?;
    let before = sa(&site)?;

    let rotated = rotate(&world, &tunnel, LONG)?;
    let second = world.vpn_config(&tunnel)?;
    ensure!(second != first, "the configuration has the old key");
    ensure!(rotated["previousKeyUntil"].is_string(), "{rotated}");
    ensure!(rotated["connection"]["state"] == "UP" && sa(&site)? == before, "the tunnel was taken down");
    comes_up_again(&world, &site, "the site is up again with the old key")?;
    site.load(&second)?;
    comes_up_again(&world, &site, "the site is up with the new key")?;

    // Once more, and shortly: the key of the beginning does not outlive the one that came after it.
    let in_use = sa(&site)?;
    rotate(&world, &tunnel, SHORT)?;
    let path = format!("ipsec-tunnels/{}", text(&tunnel, "id")?);
    world.gateway.wait(&world.lab, &path, "no old key", PATIENCE, |t| t.get("previousKeyUntil").is_none())?;
    ensure!(sa(&site)? == in_use, "the tunnel was taken down");
    for (old, what) in [(&second, "the second key is refused"), (&first, "the first key is refused")] {
        site.load(old)?;
        world.lab.until(what, PATIENCE, || Ok((!site.try_again()?).then_some(())))?;
        // Refused for good, not only because another one was being proved.
        ensure!(!site.try_again()? && !site.try_again()?, "not so: {what}");
    }
    site.load(&world.vpn_config(&tunnel)?)?;
    comes_up_again(&world, &site, "the site is up with the third key")?;

    // Whoever was given a key is on record.
    let read = world.gateway.api.get(&world.gateway.at("executions?action=READ_KEY&actor=admin"))?;
    assert_eq!(read["totalElements"], 4, "{read}");
    drop(site);
    world.end()
}
