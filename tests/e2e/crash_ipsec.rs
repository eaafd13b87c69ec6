//! `kill -9` with IPsec tunnels: the next start adopts their namespaces, daemons and rules, and removes those of
//! deleted tunnels.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::harness::{SITE_CIDR, World, text};

const ROUNDS: u8 = 3;

/// The longest time until the remains of deleted tunnels are removed and the other tunnels are correct.
const RECOVERY: Duration = Duration::from_secs(30);

#[test]
fn deleted_tunnels_leave_nothing_behind_when_the_gateway_is_killed() -> Result<()> {
    let mut world = World::with_sites(0).start()?;
    for round in 0..ROUNDS {
        let first = round * 4;
        let kept = world.tunnel(first)?;
        let gone = [world.tunnel(first + 1)?, world.tunnel(first + 2)?];
        let before = world.tunnel_namespaces()?;
        let first_gone = world.gateway.at(&format!("ipsec-tunnels/{}", text(&gone[0], "id")?));
        for tunnel in &gone {
            let path = world.gateway.at(&format!("ipsec-tunnels/{}", text(tunnel, "id")?));
            world.gateway.api.delete(&path)?;
        }
        let body = json!({"name": format!("late-{round}"), "locationId": "local",
            "peerPublicIp": World::peer(first + 3).to_string(), "peerCidr": SITE_CIDR});
        let late = world.gateway.api.post(&world.gateway.at("ipsec-tunnels"), &body)?;
        // Two tunnels are being removed and one is being set up. The gateway is killed at once, when the set of
        // namespaces has changed, or when the first deleted tunnel is DELETED.
        world.lab.until("it is time to kill the gateway", RECOVERY, || {
            let is_time = match round {
                0 => true,
                1 => world.tunnel_namespaces()? != before,
                _ => world.gateway.api.get(&first_gone)?["status"] == "DELETED",
            };
            Ok(is_time.then_some(()))
        })?;
        world.gateway.process.kill()?;
        world.restart()?;

        for tunnel in [&kept, &late] {
            world.gateway.deployed(&world.lab, "ipsec-tunnels", text(tunnel, "id")?)?;
        }
        for tunnel in &gone {
            let path = format!("ipsec-tunnels/{}", text(tunnel, "id")?);
            world.gateway.wait(&world.lab, &path, "DELETED", RECOVERY, |t| t["status"] == "DELETED")?;
        }
        let live = world.gateway.list("ipsec-tunnels")?;
        ensure!(live.len() == 2 * usize::from(round + 1), "{} live tunnels", live.len());
        world.lab.until("the gateway has the live tunnels and nothing else", RECOVERY, || {
            exact(&world, live.len(), &[first + 1, first + 2])?;
            Ok(Some(()))
        })?;
        // A tunnel that existed throughout keeps its daemon.
        let namespace = world.tunnel_namespace(&kept)?;
        ensure!(charons(namespace.name())?.len() == 1);
    }
    world.end()
}

/// Checks that there are `live` namespaces with one daemon each, and no rule for the peers `gone`.
fn exact(world: &World, live: usize, gone: &[u8]) -> Result<()> {
    let namespaces = world.tunnel_namespaces()?;
    ensure!(namespaces.len() == live, "{} namespaces for {live} tunnels: {namespaces:?}", namespaces.len());
    // Includes namespaces that have lost their link: their names have the same stem.
    let stem = namespaces.first().and_then(|n| n.rsplit_once('-')).context("a name without a stem")?.0;
    let named = std::fs::read_dir("/run/netns")?.flatten();
    let named = named.filter(|n| n.file_name().to_string_lossy().starts_with(stem)).count();
    ensure!(named == live, "{named} namespaces {stem}-… for {live} tunnels");
    for name in &namespaces {
        let daemons = charons(name)?;
        ensure!(daemons.len() == 1, "{} daemons in {name}", daemons.len());
    }
    let rules = world.outside.command("nft").args(["list", "ruleset"]).output()?;
    let rules = String::from_utf8(rules.stdout)?;
    for &peer in gone {
        let peer = World::peer(peer).to_string();
        let whole = |w: &str| w.trim_matches(|c: char| !c.is_ascii_digit()) == peer;
        ensure!(!rules.split_whitespace().any(whole), "a rule for {peer} remains:\n{rules}");
    }
    Ok(())
}

/// The IKE daemons in a namespace.
pub(super) fn charons(namespace: &str) -> Result<Vec<i32>> {
    let out = std::process::Command::new("ip").args(["netns", "pids", namespace]).output()?;
    let pids = String::from_utf8(out.stdout)?;
    let is_charon = |pid: &i32| {
        std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|e| e == Path::new("/usr/lib/ipsec/charon"))
    };
    Ok(pids.lines().filter_map(|p| p.trim().parse().ok()).filter(is_charon).collect())
}
