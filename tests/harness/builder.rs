//! Builds the world of a test: `World::loopback().publish(echo)?`, `World::with_sites(2).start()?`.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde_json::Value;
use wicketgate_lab::{
    Agent, GatewayOptions, GatewayProcess, Lab, Namespace, OwnPostgres, Process,
    roles::{GatewayPlace, start_gateway, start_server},
};

use super::{
    GATEWAY, PRIVATE, World, door, gateway_options, is_kernel_lane, join, lab, start, wicketgate_executable,
};

/// Without sites there is no IPsec, and everything uses the loopback interface of one namespace.
pub(crate) struct WorldBuilder {
    pub(super) sites: Option<u8>,
    log: &'static str,
}

/// What a world has beside its server, if that has no gateway in its process.
pub(crate) struct Apart {
    pub(crate) postgres: OwnPostgres,
    pub(crate) gateway: Process,
}

impl Apart {
    /// Starts the server again, which was stopped.
    pub(crate) fn start_server(&self, world: &mut World) -> Result<()> {
        let options = gateway_options(&world.outside, world.ipsec, world.log);
        world.gateway = start_server(&world.lab, &options, &self.postgres.socket_url(), 0)?;
        Ok(())
    }

    /// Starts one more server on the same database; the first one has number 0.
    pub(crate) fn start_another_server(&self, world: &World, nth: u16) -> Result<GatewayProcess> {
        let options = gateway_options(&world.outside, world.ipsec, world.log);
        start_server(&world.lab, &options, &self.postgres.socket_url(), nth)
    }

    /// Starts the gateway again, which was stopped.
    pub(crate) fn start_gateway(&mut self, world: &World) -> Result<()> {
        let options = gateway_options(&world.outside, world.ipsec, world.log);
        self.gateway = start_gateway(&world.lab, &options, GatewayPlace::FIRST, None)?;
        Ok(())
    }

    /// Starts one more gateway, which joins.
    pub(crate) fn start_another_gateway(&self, world: &World, place: GatewayPlace<'_>) -> Result<Process> {
        let options = gateway_options(&world.outside, world.ipsec, world.log);
        start_gateway(&world.lab, &options, place, Some(&world.gateway))
    }
}

/// A service behind an agent, published at port 9000 of the tunnel of site 0.
pub(crate) struct Published<T> {
    pub(crate) agent: Agent,
    pub(crate) zid: String,
    pub(crate) tunnel: Value,
    pub(crate) share: Value,
    /// The address that clients connect to.
    pub(crate) door: SocketAddr,
    /// The value that the function that started the service returned.
    pub(crate) target: T,
}

impl World {
    /// Starts `wicketgate up` like [`World::restart`], with more flags.
    pub(crate) fn restart_with(&mut self, flags: &str) -> Result<()> {
        self.restart_after(&format!("[ \"$1\" = up ] && set -- \"$@\" {flags}"))
    }

    /// Starts `wicketgate up` like [`World::restart`], after these lines of a shell script.
    pub(crate) fn restart_after(&mut self, lines: &str) -> Result<()> {
        let lines = format!("{lines}\nexec {} \"$@\"", wicketgate_executable().display());
        let executable = &self.script("wicketgate", &lines)?;
        let options = gateway_options(&self.outside, self.ipsec, self.log);
        self.gateway = GatewayProcess::start(&self.lab, &GatewayOptions { executable, ..options })?;
        Ok(())
    }
}

impl WorldBuilder {
    pub(super) fn new(sites: Option<u8>) -> Self {
        Self { sites, log: "info" }
    }

    /// Sets `RUST_LOG` of the product's processes.
    pub(crate) fn log(self, log: &'static str) -> Self {
        Self { log, ..self }
    }

    pub(crate) fn start(self) -> Result<World> {
        self.start_with(start)
    }

    /// With a server and a gateway in processes of their own. `None`: PostgreSQL is not installed.
    pub(crate) fn start_apart(self) -> Result<Option<(World, Apart)>> {
        let Some(postgres) = OwnPostgres::start()? else { return Ok(None) };
        let mut role = None;
        let world = self.start_with(|lab, outside, ipsec, log| {
            let options = gateway_options(outside, ipsec, log);
            let server = start_server(lab, &options, &postgres.socket_url(), 0)?;
            role = Some(start_gateway(lab, &options, GatewayPlace::FIRST, Some(&server))?);
            Ok(server)
        })?;
        let gateway = role.context("the gateway was not started")?;
        Ok(Some((world, Apart { postgres, gateway })))
    }

    fn start_with(
        self,
        start: impl FnOnce(&Lab, &Namespace, &'static str, &'static str) -> Result<GatewayProcess>,
    ) -> Result<World> {
        let (lab, log) = (lab()?, self.log);
        let outside = lab.namespace("gw")?;
        let Some(count) = self.sites else {
            let gateway = start(&lab, &outside, "off", log)?;
            let private = outside.clone();
            return Ok(World {
                lab,
                gateway,
                outside,
                private,
                internet: None,
                sites: Vec::new(),
                ipsec: "off",
                log,
            });
        };
        let (internet, private) = (lab.namespace("net")?, lab.namespace("private")?);
        internet.sysctl("net/ipv4/ip_forward", "1")?;
        join(&internet, &outside, "gw", GATEWAY)?;
        join(&internet, &private, "private", PRIVATE)?;
        let mut sites = Vec::new();
        for n in 0..count {
            let site = lab.namespace(&format!("site{n}"))?;
            join(&internet, &site, &format!("site{n}"), World::peer(n))?;
            sites.push(site);
        }
        let ipsec = if is_kernel_lane() { "kernel" } else { "auto" };
        let gateway = start(&lab, &outside, ipsec, log)?;
        Ok(World { lab, gateway, outside, private, internet: Some(internet), sites, ipsec, log })
    }

    /// Starts the product, one agent and a service, and publishes the service at port 9000 of the tunnel of site 0.
    pub(crate) fn publish<T>(
        self,
        service: impl FnOnce(&Namespace, SocketAddr) -> Result<T>,
    ) -> Result<(World, Published<T>)> {
        let world = self.start()?;
        let published = world.publish(service)?;
        Ok((world, published))
    }
}

impl World {
    /// Like [`WorldBuilder::publish`], for a running world that has no agent.
    pub(crate) fn publish<T>(
        &self,
        service: impl FnOnce(&Namespace, SocketAddr) -> Result<T>,
    ) -> Result<Published<T>> {
        let target = service(&self.private, self.target(7001))?;
        let (agent, zid) = self.agent("agent")?;
        let tunnel = self.tunnel(0)?;
        let share = self.share("published", &tunnel, &zid, self.target(7001), 9000)?;
        let door = door(&tunnel, 9000)?;
        Ok(Published { agent, zid, tunnel, share, door, target })
    }
}
