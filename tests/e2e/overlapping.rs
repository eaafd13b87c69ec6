//! The main use case: customers with the same subnet share one public address.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::harness::{
    PATIENCE, World, door,
    targets::{ask, greeting},
};

/// The wait for a service that must not be reachable.
const TRY: Duration = Duration::from_secs(3);

#[test]
fn two_customers_with_the_same_subnet_use_the_same_port_over_esp() -> Result<()> {
    let world = World::with_sites(2).start()?;
    let internet = world.internet.as_ref().ok_or_else(|| anyhow::anyhow!("no internet"))?;
    let peers = [World::peer(0), World::peer(1)];
    let wire = wicketgate_lab::Wire::watch(&world.lab, internet, &peers, "10.0.0.0/8, 100.64.0.0/10")?;
    let words = ["words for the first customer", "words for the second customer"];
    for (port, words) in [7001, 7002].into_iter().zip(words) {
        greeting(&world.private, world.target(port), words)?;
    }
    let (_agent, zid) = world.agent("agent")?;
    let tunnels = [world.tunnel(0)?, world.tunnel(1)?];
    world.share("first", &tunnels[0], &zid, world.target(7001), 9000)?;
    world.share("second", &tunnels[1], &zid, world.target(7002), 9000)?;
    let sites = [world.connected_site(0, &tunnels[0])?, world.connected_site(1, &tunnels[1])?];

    for _ in 0..5 {
        for ((site, tunnel), words) in sites.iter().zip(&tunnels).zip(words) {
            assert_eq!(ask(&site.namespace, door(tunnel, 9000)?, PATIENCE)?, words);
        }
    }
    // Neither site reaches the other's share, and no cleartext was on the wire.
    assert!(ask(&sites[0].namespace, door(&tunnels[1], 9000)?, TRY).is_err());
    assert!(ask(&sites[1].namespace, door(&tunnels[0], 9000)?, TRY).is_err());
    for peer in peers {
        // The least is five times SYN, SYN-ACK, ACK, the words with a FIN, and its ACK with another.
        let packets = wire.esp(peer)?;
        ensure!(packets >= 25, "only {packets} ESP packets of {peer}");
    }
    let (_, seen) = wire.search(&world.lab, &words)?;
    ensure!(seen.is_empty(), "seen on the wire: {seen:?}");

    // Both connections have byte counters, and their SAs are still established.
    for (tunnel, site) in tunnels.iter().zip(&sites) {
        let path = format!("ipsec-tunnels/{}", crate::harness::text(tunnel, "id")?);
        let moved = |t: &serde_json::Value| {
            t["connection"]["bytesIn"].as_u64() > Some(0) && t["connection"]["bytesOut"].as_u64() > Some(0)
        };
        world.gateway.wait(&world.lab, &path, "counting", PATIENCE, moved)?;
        ensure!(site.swanctl(&["--list-sas"])?.contains("ESTABLISHED"), "the IKE SA is gone");
    }
    world.end()
}
