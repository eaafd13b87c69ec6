//! Gateways. There is one: whatever the database knows of a gateway is about it.

use crate::{Result, Store, agent_link::environment_event, write::Write};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use wicketgate_model::GatewayId;

impl Store {
    /// Records that a gateway's link begins. No agent counts as connected to it until the gateway reports it again.
    ///
    /// A gateway with another id than the one before takes its place: its data directory is new, or the database is of
    /// a version in which the gateway had no row.
    pub async fn gateway_linked(&self, gateway: GatewayId, at: Timestamp) -> Result<()> {
        self.settle(move |write| {
            async move {
                write.tx.execute("UPDATE gateway SET id = $1 WHERE id <> $1", &[&gateway]).await?;
                let insert =
                    "INSERT INTO gateway (id, created_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
                write.tx.execute(insert, &[&gateway, &at]).await?;
                write.disconnect_agents(gateway, at, None).await
            }
            .boxed()
        })
        .await
    }

    /// Records that a gateway's link has ended. Its agents were connected until then.
    pub async fn gateway_lost(&self, gateway: GatewayId, at: Timestamp) -> Result<()> {
        self.settle(move |write| write.disconnect_agents(gateway, at, Some(at)).boxed()).await
    }
}

impl Write {
    /// Ends all links of a gateway, with the events of their environments. `seen` is when its agents were last known to be
    /// connected; without it, that is when they connected.
    async fn disconnect_agents(
        &mut self,
        gateway: GatewayId,
        at: Timestamp,
        seen: Option<Timestamp>,
    ) -> Result<()> {
        let active = "SELECT id, frontdoor FROM environment WHERE id IN (SELECT a.environment FROM agent a \
                      JOIN agent_link k ON k.agent = a.id WHERE k.gateway = $1 AND k.connected_since IS NOT NULL) ORDER BY id";
        let active = self.tx.all(active, &[&gateway]).await?;
        let disconnect = "UPDATE agent_link SET last_seen = COALESCE($1, connected_since), connected_since = NULL \
                          WHERE gateway = $2 AND connected_since IS NOT NULL";
        self.tx.execute(disconnect, &[&seen, &gateway]).await?;
        let event = |(environment, frontdoor)| environment_event(frontdoor, environment, false, at);
        self.deferred.events.extend(active.into_iter().map(event));
        Ok(())
    }
}
