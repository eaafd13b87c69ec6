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
use std::cmp::Ordering;
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
    /// How many tunnels its gateways have room for; absent if unknown or unlimited.
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
    let (gateways, locations) = (&at.state.gateways, at.state.gateways.locations());
    let max_tunnels = |id: &LocationId| gateways.max_tunnels_at(id);
    let matches = |id: &&LocationId| {
        let is = |value: &FilterValue| match value {
            FilterValue::Text(text) => text == id.as_str(),
            FilterValue::Integer(most) => max_tunnels(id).map(i64::from) == Some(*most),
            _ => false,
        };
        query.request.filters.iter().all(|f| f.values.iter().any(is))
    };
    let mut found: Vec<_> = locations.iter().filter(matches).collect();
    // Stable sorts, from the last criterion to the first.
    for sort in query.request.sort.iter().rev() {
        let by = |id: &&LocationId| (*sort.column == MAX_TUNNELS).then(|| max_tunnels(id));
        found.sort_by(|a, b| {
            let order = by(a).cmp(&by(b)).then_with(|| match by(a) {
                Some(_) => Ordering::Equal,
                None => a.cmp(b),
            });
            if sort.descending { order.reverse() } else { order }
        });
    }
    let Page { rows, total } = query.request.page.of(found);
    let rows = rows.into_iter().map(|id| Location { id: id.clone(), max_tunnels: max_tunnels(id) });
    Ok(format.page(&at.path("locations"), &query, total, rows))
}
