//! What a share or a tunnel carried.

use super::{
    access::{InFrontdoor, PathId},
    shares, tunnels,
    wire::{
        metrics::{Metrics, window},
        query::Query,
    },
};
use crate::{
    auth::Scope,
    error::{ApiError, Kind},
    state::{AppState, now},
};
use axum::{Json, extract::State};
use wicketgate_store::TrafficScope;

pub(super) async fn of_share(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    query: Query,
) -> Result<Json<Metrics>, ApiError> {
    at.need_shares(Scope::Read)?;
    let window = window(query, now())?;
    let share = shares::find(&state, &at, id.parse(Kind::Share)?).await?.id;
    let samples = state.store.traffic(TrafficScope::Share(share), &window).await?;
    Ok(Json(Metrics::new("ipsec-share", share.to_string(), &window, &samples)))
}

pub(super) async fn of_tunnel(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    query: Query,
) -> Result<Json<Metrics>, ApiError> {
    at.need_shares(Scope::Read)?;
    let window = window(query, now())?;
    let tunnel = tunnels::find(&state, &at, id.parse(Kind::Tunnel)?).await?.id;
    let samples = state.store.traffic(TrafficScope::Tunnel(tunnel), &window).await?;
    Ok(Json(Metrics::new("ipsec-tunnel", tunnel.to_string(), &window, &samples)))
}
