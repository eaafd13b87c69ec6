//! One connection for each gateway: that of `--server`, which is dialled for as long as the agent runs, and those of the newest list,
//! which come and go with it.

use crate::{
    agent::Agent, connection::GatewayConnection, proxy::ProxyRule, route::Route,
    server_address::ServerAddress, status::BOOTSTRAP,
};
use anyhow::Context as _;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wicketgate_model::GatewayId;
use wicketgate_system::program::LastingRefusal;

/// See the module.
pub(crate) struct GatewaySet {
    agent: Arc<Agent>,
    proxy: ProxyRule,
    running: JoinSet<Result<(), LastingRefusal>>,
    listed: HashMap<GatewayId, (ServerAddress, CancellationToken)>,
    last_place: usize,
    stop: CancellationToken,
}

impl GatewaySet {
    pub(crate) fn new(agent: Arc<Agent>, proxy: ProxyRule, stop: CancellationToken) -> Self {
        let (running, listed) = Default::default();
        Self { agent, proxy, running, listed, last_place: BOOTSTRAP, stop }
    }

    /// Keeps the agent connected until the stop, and then until its streams have ended, so that gateways can abort them.
    ///
    /// # Errors
    /// The agent was removed.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut dialled = self.agent.gateways.dialled();
        let (route, tls) = (Arc::clone(&self.agent.route), self.agent.tls.clone());
        let stop = self.stop.child_token();
        self.start(GatewayConnection::new(&self.agent, BOOTSTRAP, (route, tls), None, stop));
        loop {
            let list = dialled.borrow_and_update().clone();
            self.follow(&list);
            tokio::select! {
                Ok(()) = dialled.changed() => {}
                ended = self.running.join_next() => match ended {
                    Some(ended) => ended.context("the connection to a gateway failed")??,
                    None => return Ok(()),
                },
            }
        }
    }

    fn follow(&mut self, list: &BTreeMap<GatewayId, ServerAddress>) {
        if self.stop.is_cancelled() {
            return;
        }
        self.listed.retain(|gateway, (address, stop)| {
            let stays = list.get(gateway) == Some(address);
            if !stays {
                info!(gateway.id = %gateway, server = %address, "the gateway is none of the environment's any more");
                stop.cancel();
            }
            stays
        });
        for (gateway, address) in list {
            if !self.listed.contains_key(gateway) {
                self.dial(*gateway, address.clone());
            }
        }
    }

    fn dial(&mut self, gateway: GatewayId, address: ServerAddress) {
        let tls = match self.agent.tls.for_gateway(gateway) {
            Ok(tls) => tls,
            Err(error) => return warn!(gateway.id = %gateway, %error, "cannot dial a gateway"),
        };
        self.last_place += 1;
        let (place, proxy) = (self.last_place, self.proxy.of(&address));
        let names = Arc::clone(&self.agent.route.names);
        let route = Arc::new(Route { server: address.clone(), proxy, names });
        let stop = self.stop.child_token();
        self.listed.insert(gateway, (address, stop.clone()));
        self.agent.status.dial(place, route.server.to_string());
        self.start(GatewayConnection::new(&self.agent, place, (route, tls), Some(gateway), stop));
    }

    fn start(&mut self, connection: GatewayConnection) {
        let (connection, all) = (Arc::new(connection), self.stop.clone());
        self.agent.removals.serves(connection.place);
        self.running.spawn(async move {
            let ended = Arc::clone(&connection).stay_connected().await;
            if !all.is_cancelled() {
                connection.agent.removals.without(connection.place);
                connection.agent.status.gone(connection.place);
                if let Some(gateway) = connection.gateway() {
                    connection.forget(gateway);
                }
            }
            ended
        });
    }
}
