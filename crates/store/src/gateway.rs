//! Gateways.
//!
//! Invariant: no more than one gateway is in a server's process (a unique index). It has the id of the data directory, and
//! whatever the database knows of it is kept when that changes.

use crate::{
    GatewayEpoch, Result, Store, WriteContext,
    agent_link::environment_event,
    row::{rows, specs},
    statement::Assignments,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use std::net::Ipv4Addr;
use uuid::Uuid;
use wicketgate_model::{EspMode, GatewayId, LocationId};

specs! {
    /// What a gateway tells of itself when it links.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct GatewayFacts {
        /// The address that remote sites dial; `None` without IPsec, or before it has linked.
        pub public_address: Option<Ipv4Addr>,
        /// Where ESP is done; `None` before it has linked.
        pub esp: Option<EspMode>,
        /// The beginning of the names of its tunnels' namespaces.
        pub namespaces: Option<String>,
        /// The number of tunnels that it can hold, if that is known.
        pub max_tunnels: Option<u32>,
        /// The URL that agents dial, if it is known.
        pub agent_url: Option<String>,
        /// Of its program.
        pub version: Option<String>,
    }
}

rows! {
    /// A gateway, as all servers know it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct GatewayRow {
        pub id: GatewayId,
        /// `None`: it has not started since the database was of a version without it.
        pub location: Option<LocationId>,
        pub in_process: bool,
        /// As it told them last.
        pub facts: GatewayFacts,
        pub created_at: Timestamp,
    }
}

/// A gateway that is to be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewGateway {
    pub id: GatewayId,
    pub location: LocationId,
    /// It runs in the server's own process.
    pub in_process: bool,
}

impl Store {
    /// Records a gateway, or that it is at another location than before.
    ///
    /// One in the server's process takes the place of the one before with another id: its data directory is new, or the
    /// database is of a version in which the gateway had no id.
    pub async fn register_gateway(&self, gateway: &NewGateway, at: Timestamp) -> Result<()> {
        let gateway = gateway.clone();
        let context = WriteContext::new("server", at, Uuid::nil);
        self.write(&context, move |write| write.register_gateway(gateway).boxed()).await
    }

    /// All gateways, the oldest first.
    pub async fn gateways(&self) -> Result<Vec<GatewayRow>> {
        self.all("SELECT * FROM gateway ORDER BY created_at, id", &[]).await
    }

    /// Records what a gateway tells of itself: it is known, too, while the gateway is not linked.
    pub async fn gateway_introduced(&self, epoch: &GatewayEpoch, facts: &GatewayFacts) -> Result<()> {
        let (gateway, facts) = (epoch.gateway(), facts.clone());
        self.settle_under(epoch, move |write| {
            async move {
                let update = Assignments::of(&facts).update("gateway", "", &gateway, "")?;
                write.tx.run(update).await.map(drop)
            }
            .boxed()
        })
        .await
    }
}

impl Write {
    pub(crate) async fn register_gateway(&mut self, gateway: NewGateway) -> Result<()> {
        let NewGateway { id, location, in_process } = gateway;
        if in_process {
            let rename = "UPDATE gateway SET id = $1 WHERE in_process = 1 AND id <> $1";
            self.tx.execute(rename, &[&id]).await?;
        }
        let upsert = "INSERT INTO gateway (id, location, in_process, created_at) VALUES ($1, $2, $3, $4) \
                      ON CONFLICT (id) DO UPDATE SET location = excluded.location";
        self.tx.execute(upsert, &[&id, &location, &in_process, &self.context.at]).await?;
        let link =
            "INSERT INTO gateway_link (gateway, epoch) VALUES ($1, 0) ON CONFLICT (gateway) DO NOTHING";
        self.tx.execute(link, &[&id]).await?;
        self.place_the_unplaced(id, &location).await
    }

    /// Ends all agents' links to a gateway, with the events of environments that have no link to another one. `seen` is when its
    /// agents were last known to be connected; without it, that is when they connected.
    pub(crate) async fn disconnect_agents(
        &mut self,
        gateway: GatewayId,
        at: Timestamp,
        seen: Option<Timestamp>,
    ) -> Result<()> {
        let active = "SELECT id, frontdoor FROM environment WHERE id IN (SELECT a.environment FROM agent a \
                      JOIN agent_link k ON k.agent = a.id WHERE k.gateway = $1 AND k.connected_since IS NOT NULL) \
                      AND NOT EXISTS (SELECT 1 FROM agent a JOIN agent_link k ON k.agent = a.id \
                      WHERE a.environment = environment.id AND k.gateway <> $1 AND k.connected_since IS NOT NULL) ORDER BY id";
        let active = self.tx.all(active, &[&gateway]).await?;
        let disconnect = "UPDATE agent_link SET last_seen = COALESCE($1, connected_since), connected_since = NULL \
                          WHERE gateway = $2 AND connected_since IS NOT NULL";
        self.tx.execute(disconnect, &[&seen, &gateway]).await?;
        let event = |(environment, frontdoor)| environment_event(frontdoor, environment, false, at);
        self.deferred.events.extend(active.into_iter().map(event));
        Ok(())
    }
}
