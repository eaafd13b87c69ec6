//! `/{frontdoorId}/ipsec-shares/{id}/check`: walks a share's path, hop by hop, up to a real dial of its target.

use super::{
    access::{InFrontdoor, PathId},
    refusal::refused,
    shares, tunnels,
    wire::{answer::Format, body::Body, check},
};
use crate::{
    auth::Scope,
    error::{ApiError, ResourceKind},
    state::{AppState, now},
};
use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header::CACHE_CONTROL},
    response::{IntoResponse, Response},
};
use std::time::Instant;
use wicketgate_model::EspMode;
use wicketgate_store::StoreError;

/// Changes nothing; how many dials are made on request has a bound.
pub(super) async fn walk(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
    body: Body,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Read)?;
    let share = shares::find(&state, &at, id.parse(ResourceKind::Share)?).await?;
    check::nothing(body.object_or_nothing()?)?;
    if !share.standing.status.is_live() {
        return Err(refused(ResourceKind::Share, share.id)(StoreError::NotLive(share.standing.status)));
    }
    let begin = Instant::now();
    let tunnel = tunnels::find(&state, &at, share.tunnel).await?;
    let read_took = begin.elapsed();
    let begin = Instant::now();
    let seen = state.gateways.check(&tunnel.location, share.id).await;
    let took = begin.elapsed();
    let has_ipsec = state.gateways.esp_at(&tunnel.location) != Some(EspMode::Off);
    let walked =
        check::Walked { share: &share, tunnel: &tunnel, has_ipsec, read_took, seen, took, at: now() };
    let links = check::links(&share);
    let answer = format.one(StatusCode::OK, &check::Check::of(&walked), links);
    // Of this moment, and of no other.
    Ok(([(CACHE_CONTROL, HeaderValue::from_static("no-cache"))], answer).into_response())
}
