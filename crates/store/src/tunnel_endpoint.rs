//! Endpoints of tunnels: the connection of a tunnel at a gateway, as the gateway reports it.
//!
//! Invariant: a change of a connection is written together with its event. Counters and the times of SAs are no change.

use crate::{
    GatewayEpoch, Result, Store,
    connection_change::{self, ConnectionColumns},
    event::{EventKind, NewEvent},
    peer_address::{self, PeerPlace},
    statement::Assignments,
    transaction::Transaction,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use wicketgate_model::{Connection, ConnectionState, GatewayId, SaTimes, TunnelId};

/// The value of a column of the tunnel's better endpoint, for the tunnel whose `id` it is; NULL if it has no endpoint. The better
/// one is at a place that the tunnel has, is connected rather than not, and then comes first in the order of places. A subquery
/// instead of a join: RETURNING can use it too.
macro_rules! endpoint {
    ($column:literal) => {
        concat!(
            "(SELECT p.",
            $column,
            " FROM tunnel_endpoint p LEFT JOIN endpoint_place o ON o.tunnel = p.tunnel AND o.gateway = p.gateway \
             AND o.withdrawn_at IS NULL WHERE p.tunnel = id ORDER BY o.ordinal IS NULL, CASE p.state WHEN 'UP' THEN 0 \
             WHEN 'CONNECTING' THEN 1 WHEN 'IDLE' THEN 2 ELSE 3 END, o.ordinal, p.gateway LIMIT 1)"
        )
    };
}
pub(crate) use endpoint;

impl Store {
    /// Writes connections as a gateway reports them. The tunnels themselves do not change: they get no new revision.
    pub async fn record_connections(
        &self,
        epoch: &GatewayEpoch,
        connections: &[(TunnelId, Connection)],
        now: Timestamp,
    ) -> Result<()> {
        if connections.is_empty() {
            return Ok(());
        }
        let (gateway, connections) = (epoch.gateway(), connections.to_vec());
        self.settle_under(epoch, move |write| {
            async move {
                for (tunnel, connection) in &connections {
                    let event = record(&mut write.tx, gateway, *tunnel, connection, now).await?;
                    write.deferred.events.extend(event);
                }
                Ok(())
            }
            .boxed()
        })
        .await
    }
}

/// Returns the event of the change, if there is one.
async fn record(
    tx: &mut Transaction,
    gateway: GatewayId,
    tunnel: TunnelId,
    connection: &Connection,
    now: Timestamp,
) -> Result<Option<NewEvent>> {
    let select = "SELECT t.frontdoor, p.connection, t.location, t.peer_address FROM ipsec_tunnel t \
                  LEFT JOIN tunnel_endpoint p ON p.tunnel = t.id AND p.gateway = $2 \
                  WHERE t.id = $1 AND t.status <> 'DELETED'";
    let found: Option<(_, Option<Connection>, _, _)> = tx.find(select, &[&tunnel, &gateway]).await?;
    let Some((frontdoor, before, location, address)) = found else { return Ok(None) };
    let place = PeerPlace { location: &location, address, frontdoor };
    peer_address::prove(tx, place, (before.as_ref(), connection), now).await?;
    let change = connection_change::changed_at(before.as_ref(), connection, now);
    write(tx, gateway, tunnel, connection, change.is_some()).await?;
    if let Some(at) = change {
        connection_change::keep(tx, (tunnel, gateway), connection, at).await?;
    }
    let Some(at) = event_time(before.as_ref(), connection, now) else { return Ok(None) };
    Ok(Some(NewEvent {
        frontdoor,
        at,
        kind: EventKind::Connection,
        resource: tunnel.to_string(),
        status: connection.state.as_str(),
        why: connection.last_error.as_ref().map(Into::into),
    }))
}

/// The time at which the state or the last error changed, if it did. Until a gateway has reported it, a tunnel's
/// connection is shown as down.
fn event_time(before: Option<&Connection>, now_is: &Connection, now: Timestamp) -> Option<Timestamp> {
    if before.map_or(ConnectionState::Down, |c| c.state) != now_is.state {
        return Some(now_is.since);
    }
    let error = now_is.last_error.as_ref();
    let same = before.and_then(|c| connection_change::error(c.last_error.as_ref()))
        == connection_change::error(error);
    (!same).then(|| error.map_or(now, |e| e.since))
}

async fn write(
    tx: &mut Transaction,
    gateway: GatewayId,
    tunnel: TunnelId,
    connection: &Connection,
    is_change: bool,
) -> Result<()> {
    let Connection { since, nat, ike_sa, child_sa, bytes_in, bytes_out, last_error, .. } = connection;
    let established = |sa: &Option<SaTimes>| sa.map(|times| times.established_at);
    let rekey = |sa: &Option<SaTimes>| (*sa)?.rekey_at;
    let (ike_established, ike_rekey) = (established(ike_sa), rekey(ike_sa));
    let (child_established, child_rekey) = (established(child_sa), rekey(child_sa));
    let (nat_gateway, nat_peer) = (nat.map(|n| n.gateway), nat.map(|n| n.peer));
    let error_since = last_error.as_ref().map(|e| e.since);
    let columns = ConnectionColumns::from(connection);
    let reported = Assignments::of(&columns).and(&[
        ("connection", connection),
        ("since", since),
        ("bytes_in", bytes_in),
        ("bytes_out", bytes_out),
        ("error_since", &error_since),
        ("nat_gateway", &nat_gateway),
        ("nat_peer", &nat_peer),
        ("ike_established", &ike_established),
        ("ike_rekey", &ike_rekey),
        ("child_established", &child_established),
        ("child_rekey", &child_rekey),
    ]);
    let upsert = format!(
        "ON CONFLICT (tunnel, gateway) DO UPDATE SET changes = tunnel_endpoint.changes + excluded.changes, {}",
        reported.excluded()
    );
    let endpoint = reported.and(&[("tunnel", &tunnel), ("gateway", &gateway), ("changes", &is_change)]);
    tx.run(endpoint.insert("tunnel_endpoint", &upsert)?).await.map(drop)
}

/// Columns of a tunnel's connection.
pub mod columns {
    crate::list_column::columns! {
        STATE = Text(concat!("COALESCE(", endpoint!("state"), ", 'DOWN')"));
        SINCE = Time(concat!("COALESCE(", endpoint!("since"), ", r.created_at)"));
        IKE_ALGORITHMS = Text(endpoint!("ike")).optional();
        ESP_ALGORITHMS = Text(endpoint!("esp")).optional();
        PEER_ADDRESS = Text(endpoint!("peer_address")).optional();
        PEER_PORT = Integer(endpoint!("peer_port")).optional();
        PEER_ID = Text(endpoint!("peer_id")).optional();
        NAT_GATEWAY = Boolean(endpoint!("nat_gateway")).optional();
        NAT_PEER = Boolean(endpoint!("nat_peer")).optional();
        IKE_ESTABLISHED = Time(endpoint!("ike_established")).optional();
        IKE_REKEY = Time(endpoint!("ike_rekey")).optional();
        CHILD_ESTABLISHED = Time(endpoint!("child_established")).optional();
        CHILD_REKEY = Time(endpoint!("child_rekey")).optional();
        BYTES_IN = Integer(concat!("COALESCE(", endpoint!("bytes_in"), ", 0)"));
        BYTES_OUT = Integer(concat!("COALESCE(", endpoint!("bytes_out"), ", 0)"));
        ERROR_REASON = Text(endpoint!("error")).optional();
        ERROR_MESSAGE = Text(endpoint!("error_message")).optional();
        ERROR_SINCE = Time(endpoint!("error_since")).optional();
    }
}
