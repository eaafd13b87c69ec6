//! `/{frontdoorId}/ipsec-tunnels/{id}/connection-history`: the last changes of a tunnel's connection.

use super::{
    access::{Answer, Id, ReadsShares},
    tunnels,
    wire::{
        answer::Format,
        connection_change::{self, ConnectionChange},
        query::Query,
        tunnel::Tunnel,
    },
};
use wicketgate_model::TunnelId;

pub(super) async fn list(
    ReadsShares(at): ReadsShares,
    Id(id): Id<TunnelId>,
    format: Format,
    query: Query,
) -> Answer {
    let query = query.list(connection_change::PROPERTIES)?;
    let tunnel = tunnels::find(&at, id).await?.id;
    let page = at.state.store.connection_changes(tunnel, &query.request).await?;
    let rows = page.rows.into_iter().map(ConnectionChange::of);
    let path = format!("{}/connection-history", Tunnel::path(at.id(), tunnel));
    Ok(format.page(&path, &query, page.total, rows))
}
