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

const MAX_TUNNELS: &str = "maxTunnels";

/// All that there is to know of one.
pub(super) static LOCATIONS: Listing = Listing::in_memory(&[
    Property::new("id", PropertyType::Text, ""),
    Property::new(MAX_TUNNELS, PropertyType::Integer, ""),
]);

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    id: LocationId,
    /// How many tunnels its gateway can hold; left out where that is not known, or not limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tunnels: Option<u32>,
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
    let max_tunnels =
        |id: &LocationId| state.gateways.at(id).and_then(|gateway| gateway.view.lock().max_tunnels());
    let wanted = |id: &&LocationId| {
        let is = |wanted: &Wanted| match wanted {
            Wanted::Text(text) => text == id.as_str(),
            Wanted::Integer(most) => max_tunnels(id).map(i64::from) == Some(*most),
            _ => false,
        };
        query.request.filters.iter().all(|f| f.values.iter().any(is))
    };
    let mut found: Vec<_> = state.locations.iter().filter(wanted).collect();
    let total = found.len().try_into().unwrap_or(u64::MAX);
    // They all have one gateway, and so the same number.
    match query.request.sort.iter().find(|sort| sort.property.name != MAX_TUNNELS) {
        Some(sort) if sort.descending => found.sort_unstable_by(|a, b| b.cmp(a)),
        _ => found.sort_unstable(),
    }
    let rows = found.into_iter().skip(skipped).take(size);
    let rows =
        rows.map(|id| (Location { id: id.clone(), max_tunnels: max_tunnels(id) }, Vec::new())).collect();
    Ok(format.page("locationList", &at.path("locations"), &query, total, rows))
}
