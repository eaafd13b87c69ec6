//! `/{frontdoorId}/locations`

use super::{
    access::InFrontdoor,
    wire::{answer::Format, query::Query},
};
use crate::{auth::Scope, error::ApiError, state::AppState};
use axum::{extract::State, response::Response};
use serde::Serialize;
use wicketgate_model::LocationId;

#[derive(Debug, Serialize)]
struct Location {
    id: LocationId,
}

/// The sites that have gateways: few, and in memory.
pub(super) async fn list(
    State(state): State<AppState>,
    at: InFrontdoor,
    format: Format,
    query: Query,
) -> Result<Response, ApiError> {
    at.need(Scope::Read)?;
    let query = query.list()?;
    let size = usize::try_from(query.page.size).unwrap_or(usize::MAX);
    let skipped = usize::try_from(query.page.number).unwrap_or(usize::MAX).saturating_mul(size);
    let rows = state.locations.iter().skip(skipped).take(size);
    let rows = rows.map(|id| (Location { id: id.clone() }, Vec::new())).collect();
    let total = state.locations.len().try_into().unwrap_or(u64::MAX);
    Ok(format.page("locationList", &at.path("locations"), &query, total, rows))
}
