//! A tunnel's IKE log over the API: what it says, and that it holds none of the keys that were used.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::Process;

use crate::harness::{
    PATIENCE, SITE_CIDR, World,
    sas::{By, Kind, rekey},
    text,
};

const KEY: &str = "a-key-that-nobody-else-has-0123456789";

/// The bytes of every dump of 16 bytes or more in a charon's log at level 4: keys, secrets and nonces among them.
fn dumped(log: &str) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    let mut left = 0;
    for line in log.lines() {
        if let Some((_, after)) = line.split_once(" => ") {
            left = after.split(' ').next().and_then(|n| n.parse::<usize>().ok()).unwrap_or_default();
            all.push(Vec::new());
            continue;
        }
        let Some((_, octets)) = line.split_once(": ").filter(|_| left > 0) else { continue };
        let Some(bytes) = all.last_mut() else { continue };
        for octet in octets.split_whitespace().take(left.min(16)) {
            if let Ok(byte) = u8::from_str_radix(octet, 16) {
                bytes.push(byte);
                left -= 1;
            }
        }
    }
    all.retain(|bytes| bytes.len() >= 16);
    all
}

#[test]
fn the_log_tells_of_the_negotiation_and_holds_no_key_of_it() -> Result<()> {
    let world = World::with_sites(1).start()?;
    let body = json!({"name": "site-0", "locationId": "local", "peerPublicIp": World::peer(0).to_string(),
        "peerCidr": SITE_CIDR, "preSharedKey": KEY});
    let made = world.gateway.api.post(&world.gateway.at("ipsec-tunnels"), &body)?;
    let tunnel = world.gateway.deployed(&world.lab, "ipsec-tunnels", text(&made, "id")?)?;
    let path = world.gateway.at(&format!("ipsec-tunnels/{}/ike-log", text(&tunnel, "id")?));

    // A reader that follows from the beginning.
    let token = fs::read_to_string(world.gateway.data.join("admin.token"))?;
    let dir = world.lab.dir("follow")?;
    fs::write(
        dir.join("header"),
        format!("Authorization: Bearer {}\nAccept: text/event-stream\n", token.trim()),
    )?;
    let mut curl = world.outside.command("curl");
    curl.args(["-q", "-sSN", "-m", "60", "-H", &format!("@{}", dir.join("header").display())]);
    curl.arg(format!("{}{path}?follow=true", world.url()));
    let followed = dir.join("events");
    let _curl = Process::start(&world.lab, "curl", &mut curl, &followed)?;

    let mut site = world.site(0)?;
    site.log_keys();
    // The device has another key at first.
    let config = world.vpn_config(&tunnel)?;
    let begin = config.find("secret = ").context("no secret in the configuration")?;
    let line = config[begin..].lines().next().context("no secret in the configuration")?;
    site.start(&world.lab, &config.replace(line, "secret = \"a key of another tunnel, to be sure\""))?;
    ensure!(!site.try_connect()?, "a wrong key was accepted");
    let told = |what: &str| {
        world.lab.until(what, PATIENCE, || {
            let all = world.gateway.api.text(&path)?;
            Ok(all.contains(what).then_some(all))
        })
    };
    told("AUTH_FAILED")?;
    site.load(&config)?;
    world.lab.until("it connects", PATIENCE, || Ok(site.try_connect()?.then_some(())))?;
    rekey(&world, &site, By::Gateway, Kind::Child)?;
    rekey(&world, &site, By::Site, Kind::Ike)?;
    let all = told("CREATE_CHILD_SA")?;

    let lines: Vec<Value> = all.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(lines.len() > 20, "{all}");
    ensure!(lines.windows(2).all(|two| two[0]["number"].as_u64() < two[1]["number"].as_u64()), "{all}");
    let says =
        |what: &str| lines.iter().any(|line| line["message"].as_str().is_some_and(|m| m.contains(what)));
    for what in ["parsed IKE_SA_INIT request", "AUTH_FAILED", "CHILD_SA site{", "established with SPIs"] {
        ensure!(says(what), "nothing says {what}: {all}");
    }
    ensure!(!says("sending DPD request"), "signs of life are in the log");
    let last = lines.last().context("no line")?["number"].to_string();
    let newer = world.gateway.api.text(&format!("{path}?since={last}"))?;
    ensure!(newer.lines().count() < lines.len(), "since has no effect");

    let is_followed = || -> Result<_> {
        let said = fs::read_to_string(&followed)?;
        Ok((said.contains("event: ike-log") && said.contains("CREATE_CHILD_SA")).then_some(said))
    };
    let said = world.lab.until("the reader has it", PATIENCE, is_followed)?;

    let secrets = dumped(&site.log());
    ensure!(secrets.len() >= 20, "only {} dumps in the device's log: the test proves nothing", secrets.len());
    for text in [&all, &said] {
        let plain = text.to_lowercase().replace([' ', ':'], "");
        for secret in secrets.iter().map(Vec::as_slice).chain([KEY.as_bytes()]) {
            let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
            ensure!(!plain.contains(&hex), "{secret:02x?} is in the log");
            ensure!(
                !text.contains(&wicketgate_model::base64_text::encode(secret)),
                "{secret:02x?} is in the log"
            );
            let is_raw = text.as_bytes().windows(secret.len()).any(|part| part == secret);
            ensure!(!is_raw, "{secret:02x?} is in the log");
        }
    }
    site.stop()?;
    world.end()
}
