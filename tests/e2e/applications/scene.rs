//! One connected site, one agent, and the servers behind it.

use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    sync::atomic::Ordering::Relaxed,
};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wicketgate_lab::{Agent, Process, Site, run};

use super::tap::Tap;
use crate::harness::{PATIENCE, World, door, share_body, text};

/// Seconds for one run of a client, which moves up to 100 MB each way: only one that hangs takes longer, on a busy machine, too.
const CLIENT: &str = "150";

pub(super) struct Scene {
    pub(super) world: World,
    site: Site,
    _agent: Agent,
    zid: String,
    tunnel: Value,
}

/// A share, and the tap in front of it.
pub(super) struct Published {
    share: Value,
    tap: Tap,
}

impl Scene {
    pub(super) fn start() -> Result<Self> {
        let world = World::with_sites(1).start()?;
        let (agent, zid) = world.agent("agent")?;
        let tunnel = world.tunnel(0)?;
        let site = world.connected_site(0, &tunnel)?;
        Ok(Self { world, site, _agent: agent, zid, tunnel })
    }

    pub(super) fn end(self) -> Result<()> {
        self.world.end()
    }

    /// A directory for a server that runs as `nobody`.
    pub(super) fn directory(&self, name: &str) -> Result<PathBuf> {
        let dir = self.world.lab.dir(name)?;
        run(Command::new("chown").arg("nobody:nogroup").arg(&dir))?;
        Ok(dir)
    }

    /// A program of a server, as `nobody`.
    pub(super) fn as_nobody(&self, program: &str) -> Command {
        let mut command = self.world.private.command("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--", program]);
        command
    }

    /// Starts a server, which ends with the lab, and waits until it listens at `port`.
    pub(super) fn serve(&self, name: &str, command: &mut Command, port: u16) -> Result<()> {
        let mut server = self.server(name, command)?;
        server.until(&self.world.lab, "the server listens", PATIENCE, |_| {
            self.world.private.connect(self.world.target(port), PATIENCE).map(Some)
        })?;
        Ok(())
    }

    pub(super) fn server(&self, name: &str, command: &mut Command) -> Result<Process> {
        let log = self.world.lab.dir("log")?.join(format!("{name}.log"));
        Process::start(&self.world.lab, name, command, &log)
    }

    /// Publishes the server at `port`, at the ingress port of the same number.
    pub(super) fn publish(&self, name: &str, port: u16) -> Result<Published> {
        self.tap(self.share(name, port, &json!({"type": "tcp"}))?, port)
    }

    pub(super) fn share(&self, name: &str, port: u16, health_check: &Value) -> Result<Value> {
        let mut body = share_body(name, &self.tunnel, &self.zid, self.world.target(port), port);
        body["healthCheck"] = health_check.clone();
        let gateway = &self.world.gateway;
        let made = gateway.api.post(&gateway.at("ipsec-shares"), &body)?;
        gateway.deployed(&self.world.lab, "ipsec-shares", text(&made, "id")?)
    }

    pub(super) fn tap(&self, share: Value, port: u16) -> Result<Published> {
        Ok(Published { share, tap: Tap::start(&self.site.namespace, door(&self.tunnel, port)?)? })
    }

    /// A client's program at the site, which is ended if it takes too long.
    pub(super) fn client(&self, program: &str) -> Command {
        let mut command = self.site.namespace.command("timeout");
        command.args([CLIENT, program]);
        command
    }

    /// A file of the client with bytes that do not repeat.
    pub(super) fn file(&self, name: &str, size: usize) -> Result<PathBuf> {
        let mut bytes = Vec::with_capacity(size + 8);
        let mut state = size as u64;
        while bytes.len() < size {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        bytes.truncate(size);
        let path = self.world.lab.dir("client")?.join(name);
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, Permissions::from_mode(0o644))?;
        Ok(path)
    }
}

impl Published {
    /// Where clients at the site connect to.
    pub(super) fn at(&self) -> SocketAddr {
        self.tap.at
    }

    pub(super) fn ip(&self) -> String {
        self.tap.at.ip().to_string()
    }

    pub(super) fn port(&self) -> String {
        self.tap.at.port().to_string()
    }

    /// Waits until all connections have ended, and compares the share's metrics with what was counted.
    pub(super) fn verify(&self, scene: &Scene) -> Result<()> {
        let (lab, counts) = (&scene.world.lab, &self.tap.counts);
        lab.until("the connections end", PATIENCE, || Ok((counts.open.load(Relaxed) == 0).then_some(())))?;
        let [connections, broken, up, down] =
            [&counts.connections, &counts.broken, &counts.up, &counts.down].map(|n| n.load(Relaxed));
        ensure!(broken == 0, "{broken} of {connections} connections were refused or reset");
        ensure!(connections > 0 && up > 0 && down > 0, "nothing was transferred: {counts:?}");
        let carried = scene.world.carried(&self.share, |sum| {
            (sum("rx"), sum("tx"), sum("connections"), sum("failures")) == (up, down, connections, 0)
        });
        carried.map_err(|error| error.context(format!("counted at the site: {counts:?}")))
    }
}
