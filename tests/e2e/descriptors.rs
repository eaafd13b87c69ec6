//! A gateway that runs out of file descriptors stops accepting, logs this once, and recovers; and one with more shares than
//! its descriptors permit serves as many as they do, and its API.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use serde_json::Value;
use wicketgate_lab::{GatewayOptions, GatewayProcess};

use crate::harness::{
    PATIENCE, World, door, gateway_options, share_body,
    targets::{connect, echo, exchange},
    text, wicketgate_executable,
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

/// Shares, more than there is room for in a gateway with few open files.
const FILES: u32 = 400;
const SHARES: u16 = 140;
const ALL: Duration = Duration::from_secs(90);

#[test]
fn shares_beyond_the_gateways_descriptors_say_so_and_the_rest_works() -> Result<()> {
    let mut world = World::loopback().start()?;
    let limited = format!("exec prlimit --nofile={FILES} {} \"$@\"", wicketgate_executable().display());
    let start = |world: &mut World| -> Result<()> {
        world.gateway.process.stop(PATIENCE)?;
        let executable = &world.script("limited", &limited)?;
        let options = GatewayOptions { executable, ..gateway_options(&world.outside, "off", "info") };
        world.gateway = GatewayProcess::start(&world.lab, &options)?;
        Ok(())
    };
    start(&mut world)?;
    echo(&world.private, world.target(7001))?;
    let (_agent, zid) = world.agent("agent")?;
    let tunnel = world.tunnel(0)?;
    let path = world.gateway.at("ipsec-shares");
    for port in 9000..9000 + SHARES {
        let body = share_body(&format!("s{port}"), &tunnel, &zid, world.target(7001), port);
        world.gateway.api.post(&path, &body)?;
    }
    let served = settled(&world)?;
    ensure!(served.len() > 60 && served.len() < usize::from(SHARES), "{} shares are served", served.len());
    exchange(&mut connect(&world.outside, door_of(&tunnel, &served[0])?, PATIENCE)?, b"served")?;

    // The place of one that is deleted goes to another.
    world.gateway.api.delete(&world.gateway.at(&format!("ipsec-shares/{}", text(&served[0], "id")?)))?;
    world.lab.until("another share has the place", ALL, || {
        let now = deployed(&world)?;
        let has_gone = now.iter().all(|share| share["id"] != served[0]["id"]);
        Ok((has_gone && now.len() == served.len()).then_some(()))
    })?;
    // A restart begins with all of them.
    start(&mut world)?;
    let again = settled(&world)?;
    ensure!(again.len() == served.len(), "{} were served, and {} are now", served.len(), again.len());
    let pid = world.gateway.process.pid();
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    ensure!(open < usize::try_from(FILES)?, "{open} descriptors are open");
    ensure!(!world.gateway.process.said().contains("cannot accept"), "{}", world.gateway.process.tail());
    world.end()
}

fn deployed(world: &World) -> Result<Vec<Value>> {
    let all = world.gateway.list("ipsec-shares")?;
    Ok(all.into_iter().filter(|share| share["status"] == "DEPLOYED").collect())
}

/// Waits until each share is served, or says that the gateway is full. Returns those that are served.
fn settled(world: &World) -> Result<Vec<Value>> {
    world.lab.until("every share is served or has no room", ALL, || {
        let all = world.gateway.list("ipsec-shares")?;
        let is_full =
            |share: &Value| share["status"] == "ERROR" && share["statusDetail"]["reason"] == "GatewayFull";
        let (full, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_full);
        let is_settled = !full.is_empty() && others.iter().all(|share| share["status"] == "DEPLOYED");
        Ok(is_settled.then_some(others))
    })
}

fn door_of(tunnel: &Value, share: &Value) -> Result<SocketAddr> {
    let port = share["ingressPort"].as_u64().context("no port")?;
    door(tunnel, u16::try_from(port)?)
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
