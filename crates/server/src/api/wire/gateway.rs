//! A gateway in JSON.

use super::{
    answer::{Links, Representation},
    fields::Fields,
    property::{
        LINKS, Property,
        PropertyType::{Boolean, Enum, Id, Integer, Text, Time},
    },
};
use crate::error::ApiError;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use std::net::Ipv4Addr;
use wicketgate_model::{EspMode, GatewayId, Invalid, LocationId};
use wicketgate_store::{GatewayStatus, ListedGateway, column::gateway as column};

pub(in crate::api) static PROPERTIES: &[Property] = &[
    Property::new("id", Id("gwy-")).column(&column::ID),
    Property::new("locationId", Text).column(&column::LOCATION).described_as("gatewayLocation"),
    Property::new("status", Enum(GatewayStatus::NAMES)).column(&column::STATUS).described_as("gatewayStatus"),
    Property::new("draining", Boolean).writable().described_as("gatewayDraining"),
    Property::new("publicIp", Text).column(&column::PUBLIC_ADDRESS).described_as("gatewayPublicIp"),
    Property::new("esp", Text).optional().described_as("gatewayEsp"),
    Property::new("agentUrl", Text).optional().described_as("gatewayAgentUrl"),
    Property::new("version", Text).optional().described_as("gatewayVersion"),
    Property::new("tunnels", Integer).described_as("gatewayTunnels"),
    Property::new("heldRemovals", Integer).optional().described_as("gatewayHeldRemovals"),
    Property::new("maxTunnels", Integer).optional().described_as("gatewayMaxTunnels"),
    Property::new("linkedAt", Time).optional().described_as("gatewayLinkedAt"),
    Property::new("lastSeenAt", Time).optional().described_as("gatewayLastSeenAt"),
    Property::new("createdAt", Time).column(&column::CREATED_AT),
    LINKS,
];

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Gateway {
    id: GatewayId,
    location_id: Option<LocationId>,
    status: &'static str,
    draining: bool,
    public_ip: Option<Ipv4Addr>,
    esp: Option<EspMode>,
    agent_url: Option<String>,
    version: Option<String>,
    tunnels: u64,
    held_removals: Option<u64>,
    max_tunnels: Option<u32>,
    linked_at: Option<Timestamp>,
    last_seen_at: Option<Timestamp>,
    created_at: Timestamp,
}

impl Gateway {
    pub(in crate::api) const PATH: &'static str = "/frontdoor/v2/gateways";

    pub(in crate::api) fn of(row: ListedGateway) -> Self {
        Self {
            status: row.status().as_str(),
            id: row.id,
            location_id: row.location,
            draining: row.draining,
            public_ip: row.facts.public_address,
            esp: row.facts.esp,
            agent_url: row.facts.agent_url,
            version: row.facts.version,
            tunnels: row.tunnels,
            held_removals: row.held_removals,
            max_tunnels: row.facts.max_tunnels,
            linked_at: row.linked_at,
            last_seen_at: row.lost_at,
            created_at: row.created_at,
        }
    }
}

impl Representation for Gateway {
    const LIST: &'static str = "gatewayList";

    fn links(&self) -> Links {
        vec![("self", format!("{}/{}", Self::PATH, self.id))]
    }
}

pub(in crate::api) static CONFIRMATION: &[Property] =
    &[Property::new("heldRemovals", Integer).required().described_as("confirmedRemovals")];

/// Tunnels that are to be removed.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct ConfirmedRemovals(pub(in crate::api) u64);

impl TryFrom<i64> for ConfirmedRemovals {
    type Error = Invalid;

    fn try_from(tunnels: i64) -> Result<Self, Invalid> {
        let tunnels = u64::try_from(tunnels).ok().filter(|tunnels| *tunnels > 0);
        tunnels.map(Self).ok_or_else(|| Invalid("must be 1 or more".to_owned()))
    }
}

pub(in crate::api) fn confirmed_removals(body: Map<String, Value>) -> Result<ConfirmedRemovals, ApiError> {
    let mut fields = Fields::new(body, CONFIRMATION);
    let tunnels = fields.integer("heldRemovals");
    fields.finish(|| tunnels)
}

/// Whether it is to be emptied, if a merge patch says it.
pub(in crate::api) fn draining(patch: Map<String, Value>) -> Result<Option<bool>, ApiError> {
    let mut fields = Fields::new(patch, PROPERTIES);
    let draining = fields.boolean("draining");
    fields.finish(|| Some(draining))
}
