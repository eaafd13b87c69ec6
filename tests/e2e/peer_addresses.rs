//! Two customers want the same address of a peer.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::named;

use crate::harness::{PATIENCE, World, targets::here, text, user::User};

#[test]
fn a_tunnel_that_has_lost_its_address_says_so_until_it_has_another() -> Result<()> {
    let (world, published) = World::loopback().publish(here)?;
    let api = &world.gateway.api;
    let frontdoor =
        json!({"organizationId": "other", "defaultNamespaceName": "other", "ipsecSharesEnabled": true});
    let frontdoor = api.post("/frontdoor/v2", &frontdoor)?;
    let body = json!({"name": "theirs", "locationId": published.tunnel["locationId"], "peerCidr": "172.31.0.0/16",
        "peerPublicIp": published.tunnel["peerPublicIp"]});
    let theirs = format!("/frontdoor/v2/{}/ipsec-tunnels", text(&frontdoor, "id")?);
    ensure!(api.call("POST", &theirs, Some(&body))?.status == 409);
    let begin = Instant::now();
    let taken = api.post(&format!("{theirs}?takePeerAddress=true"), &body)?;
    let (tunnel, share) = (
        format!("ipsec-tunnels/{}", text(&published.tunnel, "id")?),
        format!("ipsec-shares/{}", text(&published.share, "id")?),
    );
    let is_lost =
        |one: &Value| one["status"] == "ERROR" && one["statusDetail"]["reason"] == "PeerAddressTaken";
    let wait = |path: &str, what: &str, is: &dyn Fn(&Value) -> bool| {
        world.gateway.wait(&world.lab, path, what, PATIENCE, is)
    };
    let lost = wait(&tunnel, "the tunnel has lost its address", &is_lost)?;
    named("PeerAddressTaken", begin.elapsed());
    wait(&share, "its share says so", &is_lost)?;
    let check = api.post(&world.gateway.at(&format!("{share}/check")), &json!({}))?;
    let hops = check["hops"].as_array().context("no hops")?;
    let failed: Vec<_> = hops.iter().filter(|hop| hop["state"] == "FAILED").collect();
    ensure!(
        failed.iter().any(|hop| hop["hop"] == "tunnel" && hop["reason"] == "PeerAddressTaken"),
        "{check}"
    );
    ensure!(!check.to_string().contains("enabled") && !check.to_string().contains("disabled"), "{check}");
    let (first, address) = (&hops[0], text(&published.tunnel, "peerPublicIp")?);
    let cures = ["--peer-public-ip ADDRESS", "--take-peer-address", address];
    ensure!(text(first, "message")?.contains(address), "{first}");
    ensure!(cures.iter().all(|word| first["advice"].to_string().contains(word)), "{first}");
    for word in [text(&taken, "id")?, "theirs", text(&taken, "loadBalancerIp")?] {
        ensure!(!lost.to_string().contains(word), "{lost}");
    }
    let events = world.events("ipsec-tunnel", text(&published.tunnel, "id")?)?;
    ensure!(events.iter().any(|event| event["statusDetail"]["reason"] == "PeerAddressTaken"), "{events:?}");

    // A write of something else changes nothing; another address does.
    api.patch(&world.gateway.at(&tunnel), &json!({"description": "as before"}))?;
    wait(&tunnel, "it still has none", &is_lost)?;
    api.patch(&world.gateway.at(&tunnel), &json!({"peerPublicIp": "203.0.113.77"}))?;
    for path in [&tunnel, &share] {
        wait(path, "it is served again", &|one| one["status"] == "DEPLOYED")?;
    }
    api.delete(&format!("{theirs}/{}", text(&taken, "id")?))?;
    world.end()
}

#[test]
fn the_operator_takes_an_address_by_an_option_that_the_refusal_names() -> Result<()> {
    let (world, published) = World::loopback().publish(here)?;
    let user = User::new(&world, "operator")?;
    user.sign_in()?;
    let body =
        json!({"organizationId": "other", "defaultNamespaceName": "other", "ipsecSharesEnabled": true});
    let other = world.gateway.api.post("/frontdoor/v2", &body)?;
    let own = world.gateway.frontdoor.rsplit('/').next().unwrap_or_default();
    let (peer, location) = (text(&published.tunnel, "peerPublicIp")?, text(&published.tunnel, "locationId")?);
    let create = format!(
        "tunnel create theirs --frontdoor {} --location {location} --peer-public-ip {peer} --peer-cidr 172.31.0.0/16",
        text(&other, "id")?
    );
    let (status, words) = user.fails(&create)?;
    ensure!(status == 1 && words.contains("--take-peer-address"), "{status} {words}");
    user.says(&format!("{create} --take-peer-address"))?;
    let name = text(&published.tunnel, "name")?;
    let is = |what: &str, wanted: &dyn Fn(&Value) -> bool| {
        let path = format!("ipsec-tunnels/{}", text(&published.tunnel, "id")?);
        world.gateway.wait(&world.lab, &path, what, PATIENCE, wanted)
    };
    is("the tunnel has lost its address", &|one| one["statusDetail"]["reason"] == "PeerAddressTaken")?;
    // And back, with no other change.
    let (status, words) = user.fails(&format!("tunnel update {name} --frontdoor {own}"))?;
    ensure!(status == 2 && words.contains("nothing to change"), "{status} {words}");
    user.says(&format!("tunnel update {name} --frontdoor {own} --take-peer-address"))?;
    is("it is served again", &|one| one["status"] == "DEPLOYED")?;
    // Of the same customer's tunnels, the refusal names the one that has it.
    let (_, words) = user.fails(&format!(
        "tunnel create second --frontdoor {own} --location {location} --peer-public-ip {peer} --peer-cidr 172.31.0.0/16"
    ))?;
    ensure!(words.contains(name) && !words.contains("--take-peer-address"), "{words}");
    world.end()
}
