//! A site whose device agrees to a part of its network: the part is served, and the API says what is not.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde_json::json;

use crate::harness::{
    PATIENCE, SITE_CIDR, World,
    targets::{ask, connect_as, here},
    text,
};

/// A part of [`SITE_CIDR`], with the client, and an address in the rest.
const PART: &str = "10.0.0.0/24";
const REST: Ipv4Addr = Ipv4Addr::new(10, 0, 9, 9);
/// The wait for a connection that must not be made.
const TRY: Duration = Duration::from_secs(3);

#[test]
fn a_site_that_agrees_to_a_part_of_its_network_is_told_which() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(here)?;
    let tunnel = &published.tunnel;
    let config = world.vpn_config(tunnel)?;
    let narrow = config.replace(SITE_CIDR, PART);
    ensure!(narrow != config, "{SITE_CIDR} is not in the configuration");
    let mut site = world.site(0)?;
    let begin = Instant::now();
    world.connect(&mut site, tunnel, &narrow)?;

    let path = format!("ipsec-tunnels/{}", text(tunnel, "id")?);
    let seen = world.gateway.wait(&world.lab, &path, "narrowed", PATIENCE, |t| {
        t["connection"]["childSas"][0]["narrowed"] == true
    })?;
    wicketgate_lab::named("A part of the site's hosts gets no answer.", begin.elapsed());
    let selectors = &seen["connection"]["childSas"][0]["selectors"];
    assert_eq!(selectors["peer"], json!([PART]), "{seen}");

    let path = format!("ipsec-shares/{}/check", text(&published.share, "id")?);
    let check = world.gateway.api.post(&world.gateway.at(&path), &json!({}))?;
    let hop = text(&check["hops"][1], "message")?;
    ensure!(hop.contains(&format!("only for {PART} of peerCidr, {SITE_CIDR}")), "{check}");

    assert_eq!(ask(&site.namespace, published.door, PATIENCE)?, "here");
    site.namespace.ip(&format!("addr add {REST}/32 dev lo"))?;
    ensure!(connect_as(&site.namespace, REST, published.door, TRY).is_err(), "the rest is connected, too");
    world.end()
}
