//! `/{frontdoorId}/ipsec-tunnels/{id}/connection-history`: what became of a tunnel's connection.

use super::{
    access::{InFrontdoor, PathId},
    tunnels,
    wire::{
        answer::Format,
        connection_change::{self, ConnectionChange},
        query::Query,
        tunnel::Tunnel,
    },
};
use crate::{
    auth::Scope,
    error::{ApiError, ResourceKind},
    state::AppState,
};
use axum::{extract::State, response::Response};

pub(super) async fn list(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
    query: Query,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Read)?;
    let query = query.list(connection_change::PROPERTIES)?;
    let tunnel = tunnels::find(&state, &at, id.parse(ResourceKind::Tunnel)?).await?.id;
    let page = state.store.connection_changes(tunnel, &query.request).await?;
    let rows = page.rows.into_iter().map(ConnectionChange::of);
    let path = format!("{}/connection-history", Tunnel::path(at.id(), tunnel));
    Ok(format.page(&path, &query, page.total, rows))
}
