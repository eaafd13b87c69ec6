//! The connections of tunnels, as gateways report them.
//!
//! Invariant: a change of a connection is written together with its event. Counters and the times of SAs are no change.

use crate::{
    Result, Store, StoreError,
    columns::{big, json_option, parsed},
    connection_change,
    event::{EventKind, NewEvent},
    transaction::Transaction,
};
use jiff::Timestamp;
use wicketgate_model::{Connection, ConnectionState, SaTimes, TunnelId};

impl Store {
    /// Writes connections as gateways report them. The tunnels themselves do not change: they get no new revision.
    pub async fn record_connections(
        &self,
        connections: &[(TunnelId, Connection)],
        now: Timestamp,
    ) -> Result<()> {
        if connections.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let mut events = Vec::new();
        for (id, connection) in connections {
            events.extend(record(&mut tx, *id, connection, now).await?);
        }
        self.commit_telling(tx, events).await
    }
}

/// Returns the event of the change, if there is one.
async fn record(
    tx: &mut Transaction,
    id: TunnelId,
    connection: &Connection,
    now: Timestamp,
) -> Result<Option<NewEvent>> {
    let row =
        sqlx::query("SELECT frontdoor, connection FROM ipsec_tunnel WHERE id = $1 AND status <> 'DELETED'")
            .bind(id.to_string())
            .fetch_optional(&mut **tx)
            .await?;
    let Some(row) = row else { return Ok(None) };
    let before: Option<Connection> = json_option(&row, "connection")?;
    write(tx, id, connection).await?;
    connection_change::keep(tx, id, before.as_ref(), connection, now).await?;
    let Some(at) = changed_at(before.as_ref(), connection, now) else { return Ok(None) };
    Ok(Some(NewEvent {
        frontdoor: parsed(&row, "frontdoor")?,
        at,
        kind: EventKind::Connection,
        resource: id.to_string(),
        status: connection.state.as_str(),
        why: connection.last_error.as_ref().map(Into::into),
    }))
}

/// The time at which the state or the last error changed, if it did. Until a gateway has reported it, a tunnel's
/// connection is shown as down.
fn changed_at(before: Option<&Connection>, now_is: &Connection, now: Timestamp) -> Option<Timestamp> {
    if before.map_or(ConnectionState::Down, |c| c.state) != now_is.state {
        return Some(now_is.since);
    }
    let error = now_is.last_error.as_ref();
    let same = before.and_then(|c| connection_change::error(c.last_error.as_ref()))
        == connection_change::error(error);
    (!same).then(|| error.map_or(now, |e| e.since))
}

async fn write(tx: &mut Transaction, id: TunnelId, connection: &Connection) -> Result<()> {
    let Connection { state, since, algorithms, peer, nat, ike_sa, child_sa, bytes_in, bytes_out, last_error } =
        connection;
    let json = serde_json::to_string(connection).map_err(|_| StoreError::Corrupt { column: "connection" })?;
    let established = |sa: &Option<SaTimes>| sa.map(|times| times.established_at.as_microsecond());
    let rekey = |sa: &Option<SaTimes>| Some((*sa)?.rekey_at?.as_microsecond());
    sqlx::query(
        "UPDATE ipsec_tunnel SET connection = $1, connection_state = $2, connection_since = $3, \
         connection_ike = $4, connection_esp = $5, connection_bytes_in = $6, connection_bytes_out = $7, \
         connection_error = $8, connection_error_message = $9, connection_error_since = $10, \
         connection_peer_address = $11, connection_peer_port = $12, connection_peer_id = $13, \
         connection_nat_gateway = $14, connection_nat_peer = $15, connection_ike_established = $16, \
         connection_ike_rekey = $17, connection_child_established = $18, connection_child_rekey = $19 \
         WHERE id = $20 AND status <> 'DELETED'",
    )
    .bind(json)
    .bind(state.as_str())
    .bind(since.as_microsecond())
    .bind(algorithms.as_ref().map(|a| a.ike.clone()))
    .bind(algorithms.as_ref().map(|a| a.esp.clone()))
    .bind(big(*bytes_in))
    .bind(big(*bytes_out))
    .bind(last_error.as_ref().map(|e| e.reason.as_str()))
    .bind(last_error.as_ref().map(|e| e.to_string()))
    .bind(last_error.as_ref().map(|e| e.since.as_microsecond()))
    .bind(peer.as_ref().map(|p| p.address.to_string()))
    .bind(peer.as_ref().map(|p| i64::from(p.port)))
    .bind(peer.as_ref().and_then(|p| p.id.clone()))
    .bind(nat.map(|n| i64::from(n.gateway)))
    .bind(nat.map(|n| i64::from(n.peer)))
    .bind(established(ike_sa))
    .bind(rekey(ike_sa))
    .bind(established(child_sa))
    .bind(rekey(child_sa))
    .bind(id.to_string())
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Columns of a tunnel's connection, in its tunnel's row.
pub mod columns {
    crate::list_column::columns! {
        STATE = Text("COALESCE(t.connection_state, 'DOWN')");
        SINCE = Time("COALESCE(t.connection_since, t.created_at)");
        IKE_ALGORITHMS = Text("t.connection_ike").optional();
        ESP_ALGORITHMS = Text("t.connection_esp").optional();
        PEER_ADDRESS = Text("t.connection_peer_address").optional();
        PEER_PORT = Integer("t.connection_peer_port").optional();
        PEER_ID = Text("t.connection_peer_id").optional();
        NAT_GATEWAY = Boolean("t.connection_nat_gateway").optional();
        NAT_PEER = Boolean("t.connection_nat_peer").optional();
        IKE_ESTABLISHED = Time("t.connection_ike_established").optional();
        IKE_REKEY = Time("t.connection_ike_rekey").optional();
        CHILD_ESTABLISHED = Time("t.connection_child_established").optional();
        CHILD_REKEY = Time("t.connection_child_rekey").optional();
        BYTES_IN = Integer("COALESCE(t.connection_bytes_in, 0)");
        BYTES_OUT = Integer("COALESCE(t.connection_bytes_out, 0)");
        ERROR_REASON = Text("t.connection_error").optional();
        ERROR_MESSAGE = Text("t.connection_error_message").optional();
        ERROR_SINCE = Time("t.connection_error_since").optional();
    }
}
