//! Sites whose device's own public address is in `peerCidr`, with the configuration file that the product generates.

use anyhow::Result;

use crate::harness::{PATIENCE, World, door, targets::ask, targets::here};

/// Connects a site with `cidr` behind a device that has an address in it, and asks a share from that address.
fn served(cidr: &str) -> Result<World> {
    let world = World::with_sites(1).start()?;
    here(&world.private, world.target(7001))?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.gateway.tunnel(&world.lab, "site-0", World::peer(0), cidr)?;
    world.share("here", &tunnel, &zid, world.target(7001), 9000)?;
    // The device asks, and chooses its own address as the source.
    let site = world.connected_site(0, &tunnel)?;
    for _ in 0..3 {
        assert_eq!(ask(&site.namespace, door(&tunnel, 9000)?, PATIENCE)?, "here");
    }
    Ok(world)
}

#[test]
fn a_device_that_is_its_whole_site_is_served() -> Result<()> {
    served(&format!("{}/32", World::peer(0)))?.end()
}

#[test]
fn a_device_within_its_site_is_served() -> Result<()> {
    let net = u32::from(World::peer(0)) & !7;
    served(&format!("{}/29", std::net::Ipv4Addr::from(net)))?.end()
}
