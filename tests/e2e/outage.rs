//! A site's line is out for longer than the gateway waits for answers. Both daemons keep running.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::harness::{
    PATIENCE, World,
    targets::{ask, here},
    text,
};

/// The length of the outage. The gateway gives the peer up after 22 s.
const OUTAGE: Duration = Duration::from_secs(40);

/// The longest time from the end of the outage to the connection, and from there to traffic: the longest pause between two packets of
/// the gateway that calls the peer back is 8 s, and the busy machine.
const BACK: Duration = Duration::from_secs(15);

/// The bound of one attempt of a client; attempts repeat until one succeeds.
const TRY: Duration = Duration::from_secs(1);

/// Interrupts the line of a site whose device has the product's configuration with `changes`.
fn cut_for_a_while(world: World, changes: &[(&str, &str)]) -> Result<()> {
    let published = world.publish(here)?;
    let mut site = world.site(0)?;
    site.use_default_patience();
    let mut config = world.vpn_config(&published.tunnel)?;
    for (from, to) in changes {
        ensure!(config.contains(from), "{from} is not in {config}");
        config = config.replace(from, to);
    }
    site.start(&world.lab, &config)?;
    // It may have started by itself.
    let _ = site.try_connect();
    site.connected(&world.lab, PATIENCE)?;
    assert_eq!(ask(&site.namespace, published.door, PATIENCE)?, "here");

    world.cut("site0")?;
    let cut = Instant::now();
    let path = format!("ipsec-tunnels/{}", text(&published.tunnel, "id")?);
    world.gateway.wait(&world.lab, &path, "not UP", OUTAGE, |t| t["connection"]["state"] != "UP")?;
    thread::sleep(OUTAGE.saturating_sub(cut.elapsed()));
    world.restore()?;
    // Before any client sends something: its ESP would have the peer called, too.
    let up = world.gateway.wait(&world.lab, &path, "UP", BACK, |t| t["connection"]["state"] == "UP")?;
    let back = || ask(&site.namespace, published.door, TRY).map(Some);
    assert_eq!(world.lab.until("traffic after the outage", BACK, back)?, "here");
    ensure!(up["connection"]["lastError"].is_null(), "{up}");
    world.end()
}

#[test]
fn a_device_that_still_waits_for_answers_is_called_back() -> Result<()> {
    cut_for_a_while(World::with_sites(1).start()?, &[])
}

#[test]
fn a_device_behind_a_nat_is_called_back_through_it() -> Result<()> {
    let mut world = World::with_sites(0).start()?;
    world.add_home()?;
    cut_for_a_while(world, &[])
}

#[test]
fn a_device_without_dead_peer_detection_is_called_back() -> Result<()> {
    let changes = [
        ("dpd_delay = 15s", ""),
        ("start_action = start", ""),
        ("dpd_action = restart", ""),
        ("close_action = start", ""),
    ];
    cut_for_a_while(World::with_sites(1).start()?, &changes)
}
