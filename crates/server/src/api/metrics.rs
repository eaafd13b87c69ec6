//! What a share or a tunnel carried.

use super::{
    access::{InFrontdoor, PathId},
    shares, tunnels,
    wire::{
        answer::Format,
        metrics::{Metrics, window},
        query::Query,
    },
};
use crate::{
    auth::Scope,
    error::{ApiError, ResourceKind},
    state::{AppState, now},
};
use axum::{extract::State, http::StatusCode, response::Response};
use wicketgate_store::TrafficScope;

pub(super) async fn of_share(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
    query: Query,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Read)?;
    let window = window(query, now())?;
    let share = shares::find(&state, &at, id.parse(ResourceKind::Share)?).await?.id;
    let samples = state.store.traffic(TrafficScope::Share(share), &window).await?;
    let metrics = Metrics::new("ipsec-share", share.to_string(), &window, &samples);
    let links = vec![("self", format!("{}/{share}/metrics", at.path("ipsec-shares")))];
    Ok(format.one(StatusCode::OK, &metrics, links))
}

pub(super) async fn of_tunnel(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
    query: Query,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Read)?;
    let window = window(query, now())?;
    let tunnel = tunnels::find(&state, &at, id.parse(ResourceKind::Tunnel)?).await?.id;
    let samples = state.store.traffic(TrafficScope::Tunnel(tunnel), &window).await?;
    let metrics = Metrics::new("ipsec-tunnel", tunnel.to_string(), &window, &samples);
    let links = vec![("self", format!("{}/{tunnel}/metrics", at.path("ipsec-tunnels")))];
    Ok(format.one(StatusCode::OK, &metrics, links))
}
