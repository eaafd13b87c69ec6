//! Two customers want the same address of a peer.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::named;

use crate::harness::{PATIENCE, World, targets::here, text};

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
