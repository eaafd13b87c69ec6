//! `initiate: true`: the gateway initiates a connection and keeps it up, even if the device initiates simultaneously.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::Site;

use crate::harness::{PATIENCE, SITE_CIDR, World, sas::Sas, targets::ask, text};

/// The longest wait for a state of the connection. An unanswered attempt lasts 22 s, with its packets up to 10 s apart.
const CONNECTED: Duration = Duration::from_secs(60);

/// The time for which a connection that is not initiated must stay `DOWN`.
const STAYS_DOWN: Duration = Duration::from_secs(3);

/// The most attempts to make the two ends initiate at the same time.
const ROUNDS: usize = 3;

/// The longest wait for a second SA after the first: the last pause between two attempts of the other end.
const SECOND: Duration = Duration::from_secs(10);

/// The time after which unchanged SAs count as stable. A daemon deletes a duplicate SA after 10 s, and detects after
/// 23 s that the other end has dropped an SA.
const STAYS: Duration = Duration::from_secs(25);
/// The longest time until the SAs are stable.
const SETTLES: Duration = Duration::from_secs(80);

#[test]
fn the_gateway_connects_to_a_device_that_only_responds_and_reconnects_when_it_goes_down() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let tunnel = initiated(&world)?;
    let (_agent, door) = world.greeting(&tunnel)?;

    // The gateway initiates before the peer runs.
    connection(&world, &tunnel, "CONNECTING", |c| c["state"] == "CONNECTING")?;
    let mut site = world.site(0)?;
    site.start(&world.lab, &only_answers(&world.vpn_config(&tunnel)?))?;
    let up = connection(&world, &tunnel, "UP", |c| c["state"] == "UP")?;
    ensure!(up["peer"]["address"] == World::peer(0).to_string(), "{up}");
    ensure!(up["peer"]["id"] == World::peer(0).to_string(), "{up}");
    ensure!(up["nat"]["gateway"] == true, "{up}");
    for sa in ["ikeSa", "childSa"] {
        let time = |name: &str| up[sa][name].as_str().map(str::to_owned);
        ensure!(time("establishedAt") < time("rekeyAt") && time("rekeyAt").is_some(), "{up}");
    }
    ensure!(up["lastError"].is_null(), "{up}");
    ensure!(ask(&site.namespace, door, PATIENCE)? == "here");

    // The gateway reconnects after the device deletes the IKE SA or the CHILD SA.
    for whole in [true, false] {
        let before = connection(&world, &tunnel, "UP", |c| c["state"] == "UP")?;
        let what = if whole { "--ike" } else { "--child" };
        site.swanctl(&["--terminate", what, &name(&tunnel)?])?;
        connection(&world, &tunnel, "UP again", |c| {
            c["state"] == "UP" && c["childSa"] != Value::Null && c["since"] != before["since"]
        })?;
        ensure!(ask(&site.namespace, door, PATIENCE)? == "here");
    }
    let history = world.gateway.api.get(&at(&world, &tunnel, "/connection-history")?)?;
    let states: Vec<_> = history["content"].as_array().into_iter().flatten().map(|c| &c["state"]).collect();
    ensure!(states.iter().filter(|s| **s == "UP").count() == 3, "{history}");

    // From here on, the gateway only responds.
    world.gateway.api.patch(&at(&world, &tunnel, "")?, &json!({"initiate": false}))?;
    world.gateway.deployed(&world.lab, "ipsec-tunnels", text(&tunnel, "id")?)?;
    ensure!(ask(&site.namespace, door, PATIENCE)? == "here", "the change interrupts the connection");
    site.swanctl(&["--terminate", "--ike", &name(&tunnel)?])?;
    connection(&world, &tunnel, "DOWN", |c| c["state"] == "DOWN")?;
    let until = Instant::now() + STAYS_DOWN;
    while Instant::now() < until {
        connection(&world, &tunnel, "still DOWN", |c| c["state"] == "DOWN")?;
    }
    site.stop()?;
    world.end()
}

#[test]
fn two_ends_that_initiate_at_once_settle_and_carry_traffic() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let tunnel = initiated(&world)?;
    let (_agent, door) = world.greeting(&tunnel)?;
    let mut site = world.connected_site(0, &tunnel)?;
    let name = name(&tunnel)?;
    let mut met = false;
    for _ in 0..ROUNDS {
        site.swanctl(&["--terminate", "--ike", &name])?;
        world.filter("udp dport { 500, 4500 } drop")?;
        // Both ends initiate without an answer, and both retry.
        ensure!(site.swanctl(&["--initiate", "--child", &name, "--timeout", "1"]).is_err());
        connection(&world, &tunnel, "CONNECTING", |c| c["state"] == "CONNECTING")?;
        world.restore()?;
        world.lab.until("an SA exists", CONNECTED, || Ok((!Sas::of(&site)?.ike.is_empty()).then_some(())))?;
        let until = Instant::now() + SECOND;
        while !met && Instant::now() < until {
            met = Sas::of(&site)?.ike.len() == 2;
        }
        if met {
            break;
        }
    }
    ensure!(met, "the two ends never collided: there was one IKE SA at a time");
    settled(&world, &site, door)?;
    connection(&world, &tunnel, "UP", |c| c["state"] == "UP")?;
    site.stop()?;
    world.end()
}

/// Waits until traffic passes over SAs that have not changed for [`STAYS`].
fn settled(world: &World, site: &Site, door: std::net::SocketAddr) -> Result<()> {
    let mut last = (Instant::now(), None);
    world.lab.until("the SAs are stable and carry traffic", SETTLES, || {
        let carries = ask(&site.namespace, door, PATIENCE).is_ok();
        let now = carries.then_some([Sas::of(site)?, Sas::of_gateway(world, 0)?]);
        if now.is_none() || now != last.1 {
            last = (Instant::now(), now);
        }
        Ok((last.0.elapsed() >= STAYS).then_some(()))
    })
}

fn initiated(world: &World) -> Result<Value> {
    let body = json!({"name": "site-0", "locationId": "local", "peerPublicIp": World::peer(0).to_string(),
        "peerCidr": SITE_CIDR, "initiate": true});
    let made = world.gateway.api.post(&world.gateway.at("ipsec-tunnels"), &body)?;
    ensure!(made["initiate"] == true, "{made}");
    world.gateway.deployed(&world.lab, "ipsec-tunnels", text(&made, "id")?)
}

/// Changes a device's configuration so that the device never initiates.
fn only_answers(vpn_config: &str) -> String {
    ["start_action = start", "dpd_action = restart", "close_action = start"]
        .iter()
        .zip(["start_action = none", "dpd_action = clear", "close_action = none"])
        .fold(vpn_config.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The name of the connection, and of its child, in the device's configuration.
fn name(tunnel: &Value) -> Result<String> {
    Ok(format!("wicketgate-{}", text(tunnel, "name")?))
}

fn at(world: &World, tunnel: &Value, rest: &str) -> Result<String> {
    Ok(world.gateway.at(&format!("ipsec-tunnels/{}{rest}", text(tunnel, "id")?)))
}

fn connection(world: &World, tunnel: &Value, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
    let path = format!("ipsec-tunnels/{}", text(tunnel, "id")?);
    let seen = world.gateway.wait(&world.lab, &path, what, CONNECTED, |t| is(&t["connection"]))?;
    Ok(seen["connection"].clone())
}
