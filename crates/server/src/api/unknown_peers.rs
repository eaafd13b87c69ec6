//! `/frontdoor/v2/unknown-peers`: who sends IKE to the gateway and is no tunnel's peer. They may be sites of any Frontdoor, so only
//! who administers all of them may see this.

use super::{
    access::{Answer, Operates},
    wire::{
        answer::{Format, Links, Representation},
        property::{LINKS, Property, PropertyType},
        query::Query,
    },
};
use crate::gateways::Strangers;
use jiff::Timestamp;
use serde::Serialize;
use std::{cmp::Reverse, collections::BTreeSet, net::Ipv4Addr};
use wicketgate_model::{LocationId, UnknownPeer};
use wicketgate_store::Page;

pub(super) static PROPERTIES: &[Property] = &[
    Property::new("address", PropertyType::Text).described_as("unknownAddress"),
    Property::new("locationId", PropertyType::Text),
    Property::new("port", PropertyType::Integer).described_as("ikePort"),
    Property::new("packets", PropertyType::Integer),
    Property::new("firstSeenAt", PropertyType::Time),
    Property::new("lastSeenAt", PropertyType::Time),
    LINKS,
];

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UnknownAddress {
    address: Ipv4Addr,
    location_id: LocationId,
    port: u16,
    packets: u64,
    first_seen_at: Timestamp,
    last_seen_at: Timestamp,
}

impl Representation for UnknownAddress {
    const LIST: &'static str = "unknownPeerList";

    fn links(&self) -> Links {
        Vec::new()
    }
}

/// The newest first.
pub(super) async fn list(Operates(caller): Operates, format: Format, query: Query) -> Answer {
    let query = query.list(PROPERTIES)?;
    let state = &caller.state;
    // The gateway's counters still have what a site sent before its address became a tunnel's.
    let known = state.store.peer_addresses().await?;
    let known: BTreeSet<_> = known.into_iter().map(|(location, peer)| (location, peer.get())).collect();
    let mut found = Vec::new();
    for Strangers { location, peers, .. } in state.gateways.strangers().await {
        let located = peers.into_iter().map(|peer| (location.clone(), peer));
        found.extend(located.filter(|(location, peer)| !known.contains(&(location.clone(), peer.address))));
    }
    found.sort_unstable_by_key(|(_, peer)| Reverse(peer.last_seen_at));
    let Page { rows, total } = query.request.page.of(found);
    let rows = rows.into_iter().map(|(location_id, peer)| {
        let UnknownPeer { address, port, packets, first_seen_at, last_seen_at } = peer;
        UnknownAddress { address, location_id, port, packets, first_seen_at, last_seen_at }
    });
    Ok(format.page("/frontdoor/v2/unknown-peers", &query, total, rows))
}
