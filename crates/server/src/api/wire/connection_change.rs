//! A change of a tunnel's connection in JSON.

use super::{
    answer::{Links, Representation},
    property::{
        LINKS, Property,
        PropertyType::{Enum, Id, Integer, Ip, Object, Text, Time},
    },
};
use jiff::Timestamp;
use serde::Serialize;
use wicketgate_model::{Algorithms, ConnectionFault, ConnectionState, GatewayId, Peer};
use wicketgate_store::column::connection_change as column;

pub(in crate::api) static PROPERTIES: &[Property] = &[
    Property::new("number", Integer).column(&column::NUMBER),
    Property::new("gatewayId", Id("gwy-")).column(&column::GATEWAY),
    Property::new("at", Time).column(&column::AT),
    Property::new("state", Enum(ConnectionState::NAMES)).column(&column::STATE),
    Property::new("peer", Object).optional(),
    Property::new("peer.address", Ip).column(&column::PEER_ADDRESS),
    Property::new("peer.port", Integer).column(&column::PEER_PORT),
    Property::new("peer.id", Text).column(&column::PEER_ID),
    Property::new("algorithms", Object).optional(),
    Property::new("algorithms.ike", Text).column(&column::IKE_ALGORITHMS),
    Property::new("algorithms.esp", Text).column(&column::ESP_ALGORITHMS),
    Property::new("lastError", Object).optional(),
    Property::new("lastError.reason", Enum(ConnectionFault::NAMES)).column(&column::ERROR_REASON),
    Property::new("lastError.message", Text).column(&column::ERROR_MESSAGE),
    LINKS,
];

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct ConnectionChange {
    number: u64,
    gateway_id: GatewayId,
    at: Timestamp,
    state: ConnectionState,
    peer: Option<Peer>,
    algorithms: Option<Algorithms>,
    last_error: Option<RecordedError>,
}

#[derive(Debug, Serialize)]
struct RecordedError {
    reason: ConnectionFault,
    message: String,
}

impl ConnectionChange {
    pub(in crate::api) fn of(row: wicketgate_store::ConnectionChange) -> Self {
        Self {
            number: row.number,
            gateway_id: row.gateway,
            at: row.at,
            state: row.state,
            peer: row.peer,
            algorithms: row.algorithms,
            last_error: row.last_error.map(|(reason, message)| RecordedError { reason, message }),
        }
    }
}

impl Representation for ConnectionChange {
    const LIST: &'static str = "connectionChangeList";

    fn links(&self) -> Links {
        Vec::new()
    }
}
