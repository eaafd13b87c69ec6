//! When one tunnel's IKE daemon dies, its tunnel recovers within seconds and the other tunnels are undisturbed.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    e2e::crash_ipsec::charons,
    harness::{
        PATIENCE, World, door,
        targets::{ask, connect, echo, exchange, greeting},
        text,
    },
};

/// The longest time from the daemon's death to traffic through its tunnel.
const BACK: Duration = Duration::from_secs(5);

/// The bound of one attempt; attempts repeat until one succeeds.
const TRY: Duration = Duration::from_secs(1);

/// The longest exchange of the other tunnel's client meanwhile, on a busy machine. A separate assertion checks that no
/// part of its tunnel was restarted.
const UNDISTURBED: Duration = Duration::from_secs(3);

#[test]
fn a_killed_charon_is_replaced_within_five_seconds_and_the_other_tunnel_is_undisturbed() -> Result<()> {
    let world = World::with_sites(2).start()?;
    greeting(&world.private, world.target(7001), "here")?;
    echo(&world.private, world.target(7002))?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnels = [world.tunnel(0)?, world.tunnel(1)?];
    world.share("greeting", &tunnels[0], &zid, world.target(7001), 9000)?;
    world.share("echo", &tunnels[1], &zid, world.target(7002), 9000)?;
    let sites = [world.connected_site(0, &tunnels[0])?, world.connected_site(1, &tunnels[1])?];
    let doors = [door(&tunnels[0], 9000)?, door(&tunnels[1], 9000)?];
    assert_eq!(ask(&sites[0].namespace, doors[0], PATIENCE)?, "here");

    let namespace = world.tunnel_namespace(&tunnels[0])?;
    let pid = charons(namespace.name())?.pop().context("no charon in the tunnel's namespace")?;
    let other = || -> Result<_> {
        let daemons = charons(world.tunnel_namespace(&tunnels[1])?.name())?;
        let path = format!("ipsec-tunnels/{}", text(&tunnels[1], "id")?);
        let seen = world.gateway.api.get(&world.gateway.at(&path))?;
        Ok((daemons, seen["connection"]["state"].clone(), seen["connection"]["since"].clone()))
    };
    let before = other()?;
    let mut stream = connect(&sites[1].namespace, doors[1], PATIENCE)?;
    exchange(&mut stream, b"before")?;

    let done = AtomicBool::new(false);
    let (back, slowest) = thread::scope(|scope| {
        let client = scope.spawn(|| -> Result<Duration> {
            let mut slowest = Duration::ZERO;
            while !done.load(Ordering::Relaxed) {
                let begin = Instant::now();
                exchange(&mut stream, b"meanwhile")?;
                slowest = slowest.max(begin.elapsed());
                thread::sleep(Duration::from_millis(10));
            }
            Ok(slowest)
        });
        let killed = Instant::now();
        kill_process(Pid::from_raw(pid).context("no pid")?, Signal::KILL)?;
        let back = world.lab.until("traffic through the tunnel whose charon was killed", BACK, || {
            ask(&sites[0].namespace, doors[0], TRY).map(Some)
        });
        let took = killed.elapsed();
        done.store(true, Ordering::Relaxed);
        let slowest = client.join().map_err(|_| anyhow!("the other client panicked"))??;
        anyhow::Ok((back.map(|words| (words, took)), slowest))
    })?;
    let (words, took) = back.with_context(|| world.gateway.process.tail())?;
    assert_eq!(words, "here");
    ensure!(took <= BACK, "recovered only after {took:?}");
    ensure!(slowest < UNDISTURBED, "the other tunnel's client waited {slowest:?}");
    assert_eq!(other()?, before, "the other tunnel's daemon and connection");
    world.end()
}
