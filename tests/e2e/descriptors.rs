//! A gateway that runs out of file descriptors stops accepting, logs this once, and recovers.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::harness::{
    PATIENCE, World,
    targets::{connect, echo, exchange},
};

const CLIENTS: usize = 20;
/// Longer than several pauses of the accept loop.
const SEVERAL_PAUSES: Duration = Duration::from_millis(500);

#[test]
fn a_descriptor_shortage_is_logged_once_and_ends_when_descriptors_are_free() -> Result<()> {
    let (world, published) = World::loopback().publish(echo)?;
    let mut before = connect(&world.outside, published.door, PATIENCE)?;
    exchange(&mut before, b"before")?;

    let pid = world.gateway.process.pid();
    let all = limit(pid, None)?;
    // The limit leaves two free descriptors besides those in use.
    let used: BTreeSet<u64> = fs::read_dir(format!("/proc/{pid}/fd"))?
        .filter_map(|fd| fd.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let free = (0..).filter(|fd| !used.contains(fd)).nth(2).context("no descriptor is free")?;
    limit(pid, Some(Rlimit { current: Some(free), ..all }))?;
    let begin = Instant::now();
    let mut clients = (0..CLIENTS)
        .map(|_| connect(&world.outside, published.door, PATIENCE))
        .collect::<Result<Vec<_>>>()?;
    let said = |words: &str| world.gateway.process.said().matches(words).count();
    world.lab.until("the gateway logs that it cannot accept", PATIENCE, || {
        Ok((said("cannot accept connections from the clients of a share") > 0).then_some(()))
    })?;
    wicketgate_lab::named("Clients wait for the connection.", begin.elapsed());
    std::thread::sleep(SEVERAL_PAUSES);
    ensure!(
        said("cannot accept connections from the clients of a share") == 1,
        "{}",
        world.gateway.process.tail()
    );
    exchange(&mut before, b"meanwhile")?;

    limit(pid, Some(all))?;
    for client in &mut clients {
        // Clients that were refused because there was no carrier reconnect. Clients that waited are served.
        if exchange(client, b"after").is_err() {
            *client = connect(&world.outside, published.door, PATIENCE)?;
            exchange(client, b"after")?;
        }
    }
    world.lab.until("the gateway logs that it accepts again", PATIENCE, || {
        Ok((said("connections from the clients of a share are accepted again") > 0).then_some(()))
    })?;
    world.end()
}

/// Sets the process's limit of open files and returns the previous one, or returns the current one if `to` is `None`.
fn limit(pid: u32, to: Option<Rlimit>) -> Result<Rlimit> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process id")?;
    match to {
        Some(to) => Ok(prlimit(Some(pid), Resource::Nofile, to)?),
        None => {
            let text = fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero()))?;
            let line = text.lines().find(|l| l.starts_with("Max open files")).context("no limit of files")?;
            let mut numbers = line.split_whitespace().filter_map(|w| w.parse().ok());
            Ok(Rlimit { current: numbers.next(), maximum: numbers.next() })
        }
    }
}
