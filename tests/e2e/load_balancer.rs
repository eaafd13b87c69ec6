//! The address that a site connects to is changed while the site is connected.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::harness::{
    PATIENCE, World, door,
    targets::{ask, here},
    text,
};

const CHOSEN: &str = "10.255.7.7";

#[test]
fn a_site_reaches_the_chosen_address_with_the_new_configuration() -> Result<()> {
    let (world, published) = World::with_sites(1).publish(here)?;
    let mut site = world.connected_site(0, &published.tunnel)?;
    assert_eq!(ask(&site.namespace, published.door, PATIENCE)?, "here");

    let path = format!("ipsec-tunnels/{}", text(&published.tunnel, "id")?);
    let changed = world.gateway.api.patch(&world.gateway.at(&path), &json!({"loadBalancerIp": CHOSEN}))?;
    assert_eq!(text(&changed, "loadBalancerIp")?, CHOSEN);
    let tunnel =
        world.gateway.wait(&world.lab, &path, "DEPLOYED", PATIENCE, |t| t["status"] == "DEPLOYED")?;
    assert_eq!(text(&tunnel, "loadBalancerIp")?, CHOSEN);

    let config = world.vpn_config(&tunnel)?;
    ensure!(config.contains(CHOSEN) && !config.contains(&published.door.ip().to_string()), "{config}");
    site.stop()?;
    world.connect(&mut site, &tunnel, &config)?;
    assert_eq!(ask(&site.namespace, door(&tunnel, 9000)?, PATIENCE)?, "here");
    world.end()
}
