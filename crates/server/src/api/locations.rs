//! `/{frontdoorId}/locations`

use super::{
    access::InFrontdoor,
    wire::{answer::Format, query::Query},
};
use crate::{auth::Scope, error::ApiError, state::AppState};
use axum::{extract::State, response::Response};
use serde::Serialize;
use wicketgate_model::LocationId;
use wicketgate_store::{Listing, PageRequest, Property, PropertyType, Wanted};

/// All that there is to know of one.
pub(super) static LOCATIONS: Listing = Listing::in_memory(&[Property::new("id", PropertyType::Text, "")]);

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
    let query = query.list(&LOCATIONS)?;
    let PageRequest { number, size } = query.request.page;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let skipped = usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(size);
    let wanted = |id: &&LocationId| {
        let is = |wanted: &Wanted| matches!(wanted, Wanted::Text(text) if text == id.as_str());
        query.request.filters.iter().all(|f| f.values.iter().any(is))
    };
    let mut found: Vec<_> = state.locations.iter().filter(wanted).collect();
    let total = found.len().try_into().unwrap_or(u64::MAX);
    match query.request.sort.first() {
        Some(sort) if sort.descending => found.sort_unstable_by(|a, b| b.cmp(a)),
        _ => found.sort_unstable(),
    }
    let rows = found.into_iter().skip(skipped).take(size);
    let rows = rows.map(|id| (Location { id: id.clone() }, Vec::new())).collect();
    Ok(format.page("locationList", &at.path("locations"), &query, total, rows))
}
