//! `/{frontdoorId}/locations`

use super::{
    access::{Answer, Reads},
    wire::{
        answer::{Format, Links, Representation},
        property::{LINKS, Property, PropertyType},
        query::Query,
    },
};
use serde::Serialize;
use wicketgate_model::LocationId;
use wicketgate_store::{Column, ColumnType, FilterValue, Page};

static ID: Column = Column::new(ColumnType::Text, "id");
static MAX_TUNNELS: Column = Column::new(ColumnType::Integer, "max_tunnels");

pub(super) static PROPERTIES: &[Property] = &[
    Property::new("id", PropertyType::Text).column(&ID).described_as("locationId"),
    Property::new("maxTunnels", PropertyType::Integer).column(&MAX_TUNNELS).optional(),
    LINKS,
];

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Location {
    id: LocationId,
    /// How many tunnels its gateway has room for; absent if unknown or unlimited.
    max_tunnels: Option<u32>,
}

impl Representation for Location {
    const LIST: &'static str = "locationList";

    fn links(&self) -> Links {
        Vec::new()
    }
}

/// The sites that have gateways: few, and in memory.
pub(super) async fn list(Reads(at): Reads, format: Format, query: Query) -> Answer {
    let query = query.list(PROPERTIES)?;
    let max_tunnels =
        |id: &LocationId| at.state.gateways.at(id).and_then(|gateway| gateway.view.lock().max_tunnels());
    let matches = |id: &&LocationId| {
        let is = |value: &FilterValue| match value {
            FilterValue::Text(text) => text == id.as_str(),
            FilterValue::Integer(most) => max_tunnels(id).map(i64::from) == Some(*most),
            _ => false,
        };
        query.request.filters.iter().all(|f| f.values.iter().any(is))
    };
    let mut found: Vec<_> = at.state.locations.iter().filter(matches).collect();
    // All locations have the same gateway and the same number of tunnels.
    match query.request.sort.iter().find(|sort| *sort.column != MAX_TUNNELS) {
        Some(sort) if sort.descending => found.sort_unstable_by(|a, b| b.cmp(a)),
        _ => found.sort_unstable(),
    }
    let Page { rows, total } = query.request.page.of(found);
    let rows = rows.into_iter().map(|id| Location { id: id.clone(), max_tunnels: max_tunnels(id) });
    Ok(format.page(&at.path("locations"), &query, total, rows))
}
