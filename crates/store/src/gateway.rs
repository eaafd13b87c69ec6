//! Gateways. There is one: whatever the database knows of a gateway is about it.

use crate::{Result, Store, agent_link::environment_event, columns::parsed, event::NewEvent};
use jiff::Timestamp;
use sqlx::AnyConnection;
use wicketgate_model::GatewayId;

impl Store {
    /// Records that a gateway's link begins. No agent counts as connected to it until the gateway reports it again.
    ///
    /// A gateway with another id than the one before takes its place: its data directory is new, or the database is of
    /// a version in which the gateway had no row.
    pub async fn gateway_linked(&self, gateway: GatewayId, at: Timestamp) -> Result<()> {
        let mut tx = self.database.begin().await?;
        sqlx::query("UPDATE gateway SET id = $1 WHERE id <> $1")
            .bind(gateway.to_string())
            .execute(&mut *tx)
            .await?;
        sqlx::query("INSERT INTO gateway (id, created_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING")
            .bind(gateway.to_string())
            .bind(at.as_microsecond())
            .execute(&mut *tx)
            .await?;
        let events = disconnect_agents(&mut tx, gateway, at, None).await?;
        self.commit_telling(tx, events).await
    }

    /// Records that a gateway's link has ended. Its agents were connected until then.
    pub async fn gateway_lost(&self, gateway: GatewayId, at: Timestamp) -> Result<()> {
        let mut tx = self.database.begin().await?;
        let events = disconnect_agents(&mut tx, gateway, at, Some(at)).await?;
        self.commit_telling(tx, events).await
    }
}

/// Ends all links of a gateway, and returns the events of their environments. `seen` is when its agents were last known to
/// be connected; without it, that is when they connected.
async fn disconnect_agents(
    db: &mut AnyConnection,
    gateway: GatewayId,
    at: Timestamp,
    seen: Option<Timestamp>,
) -> Result<Vec<NewEvent>> {
    let active = sqlx::query(
        "SELECT id, frontdoor FROM environment WHERE id IN (SELECT a.environment FROM agent a \
         JOIN agent_link k ON k.agent = a.id WHERE k.gateway = $1 AND k.connected_since IS NOT NULL) ORDER BY id",
    )
    .bind(gateway.to_string())
    .fetch_all(&mut *db)
    .await?;
    sqlx::query(
        "UPDATE agent_link SET last_seen = COALESCE($1, connected_since), connected_since = NULL \
         WHERE gateway = $2 AND connected_since IS NOT NULL",
    )
    .bind(seen.map(Timestamp::as_microsecond))
    .bind(gateway.to_string())
    .execute(db)
    .await?;
    let event = |row| Ok(environment_event(parsed(row, "frontdoor")?, parsed(row, "id")?, false, at));
    active.iter().map(event).collect()
}
