//! The gateway's control group has no memory left.

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpStream},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{Api, Lab, Namespace, named};

use crate::harness::{
    AT_ONCE, PATIENCE, World,
    targets::{ask, connect, here, serve},
    text,
};

/// What the gateway may allocate beyond what it has. Streams of [`CLIENTS`] that are stuck need several times as much.
const MORE: &str = "4194304";
const CLIENTS: usize = 600;
/// The bytes that a client tries to send.
const PIECE: usize = 1 << 20;
const SIGKILL: i32 = 9;

/// A control group whose processes may allocate no more than [`MORE`], until it is dropped. What they had before is not counted.
struct Limited {
    group: PathBuf,
}

impl Limited {
    /// # Errors
    /// Why this host has none.
    fn begin(lab: &Lab, pid: u32) -> Result<Self> {
        let mount = Path::new("/sys/fs/cgroup");
        let (root, limit) = match mount.join("memory/cgroup.procs").exists() {
            true => (mount.join("memory"), "memory.limit_in_bytes"),
            false => (mount.to_owned(), "memory.max"),
        };
        let shared_out = fs::read_to_string(mount.join("cgroup.subtree_control")).unwrap_or_default();
        ensure!(
            root != mount || shared_out.split_whitespace().any(|it| it == "memory"),
            "no control groups limit memory"
        );
        let this = Self { group: lab.control_group(&root, "limited")? };
        fs::write(this.group.join(limit), MORE)?;
        fs::write(this.group.join("cgroup.procs"), pid.to_string())?;
        Ok(this)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.group);
    }
}

/// Clients that send and whose target does not read, until `ended`.
fn load(site: &Namespace, door: SocketAddr, ended: &AtomicBool) -> Vec<TcpStream> {
    let piece = vec![0; PIECE];
    let mut clients: Vec<TcpStream> = Vec::new();
    while !ended.load(Ordering::Acquire) {
        if clients.len() < CLIENTS
            && let Ok(client) = connect(site, door, AT_ONCE)
            && client.set_nonblocking(true).is_ok()
        {
            clients.push(client);
        }
        for client in &mut clients {
            let _ = client.write(&piece);
        }
    }
    clients
}

/// Creates shares until `ended`, and returns the names of those that were.
fn write((api, shares): (&Api, &str), tunnel: &Value, zid: &str, ended: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for port in 10_000..20_000 {
        let name = format!("share-{port}");
        let body = json!({"name": name, "ipsecTunnelId": tunnel["id"], "envZId": zid,
            "target": "198.18.0.2:7001", "ingressPort": port});
        match api.post(shares, &body) {
            Ok(_) => acknowledged.push(name),
            Err(_) if ended.load(Ordering::Acquire) => break,
            // It refuses, or is about to end.
            Err(_) => {}
        }
    }
    acknowledged
}

#[test]
fn a_gateway_without_memory_is_ended_and_loses_nothing_that_was_acknowledged() -> Result<()> {
    let (mut world, published) = World::with_sites(1).publish(here)?;
    let site = world.connected_site(0, &published.tunnel)?;
    ensure!(ask(&site.namespace, published.door, PATIENCE)? == "here");
    serve(&world.private, world.target(7002), |_stream| thread::park())?;
    world.share("stuck", &published.tunnel, &published.zid, world.target(7002), 9001)?;
    let stuck = SocketAddr::new(published.door.ip(), 9001);
    let limited = match Limited::begin(&world.lab, world.gateway.process.pid()) {
        Ok(limited) => limited,
        Err(error) => {
            eprintln!("SKIPPED: {error:#}");
            return world.end();
        }
    };

    let ended = AtomicBool::new(false);
    let (status, acknowledged) = thread::scope(|scope| {
        let (api, shares) = (world.gateway.api.clone(), world.gateway.at("ipsec-shares"));
        let writer = scope.spawn({
            let (published, ended) = (&published, &ended);
            move || write((&api, &shares), &published.tunnel, &published.zid, ended)
        });
        let clients = scope.spawn(|| load(&site.namespace, stuck, &ended));
        let status = world.gateway.process.wait(PATIENCE * 2);
        ended.store(true, Ordering::Release);
        drop(clients.join());
        (status, writer.join())
    });
    let (status, acknowledged) = (status?, acknowledged.ok().context("the writer panicked")?);
    ensure!(status.signal() == Some(SIGKILL), "{status}");
    let begin = Instant::now();
    drop(limited);
    ensure!(!acknowledged.is_empty(), "nothing was written before the end");

    // As the service manager does.
    world.restart()?;
    named("All connections are reset at once, and up starts again.", begin.elapsed());
    let path = format!("ipsec-tunnels/{}", text(&published.tunnel, "id")?);
    let is_up = |tunnel: &Value| tunnel["status"] == "DEPLOYED" && tunnel["connection"]["state"] == "UP";
    world.gateway.wait(&world.lab, &path, "DEPLOYED and UP", PATIENCE, is_up)?;
    let is_back =
        || Ok(ask(&site.namespace, published.door, AT_ONCE).is_ok_and(|said| said == "here").then_some(()));
    world.lab.until("the share is served", PATIENCE, is_back)?;
    world.lab.until("all that was acknowledged is deployed", PATIENCE, || {
        let shares = world.gateway.list("ipsec-shares")?;
        let deployed = |name: &String| {
            shares.iter().any(|share| share["name"] == name.as_str() && share["status"] == "DEPLOYED")
        };
        Ok(acknowledged.iter().all(deployed).then_some(()))
    })?;
    world.end()
}
