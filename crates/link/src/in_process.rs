//! Both ends of a link inside one process, joined by bounded channels.

use crate::{GatewayEnd, LinkKind, LinkReceiver, ServerEnd};
use tokio::sync::mpsc;
use wicketgate_model::{GatewayId, LocationId};

/// Messages that may wait in one direction. A slow gateway makes the server wait with the next delta, which then covers
/// all changes since the last one: the number of waiting deltas does not grow.
const CAPACITY: usize = 64;

/// Rows of a part in [`in_process_encoded`]: so few that tests have messages of several parts.
const ROWS_IN_TESTS: usize = 2;

/// Joins the two ends; messages are moved.
pub fn in_process(gateway: GatewayId, location: LocationId) -> (ServerEnd, GatewayEnd) {
    join(gateway, location, LinkKind::InProcess)
}

/// As over a network: every message is cut into small parts, encoded, decoded and joined on its way. For tests.
pub fn in_process_encoded(gateway: GatewayId, location: LocationId) -> (ServerEnd, GatewayEnd) {
    join(gateway, location, LinkKind::Network)
}

fn join(gateway: GatewayId, location: LocationId, kind: LinkKind) -> (ServerEnd, GatewayEnd) {
    let (to_gateway, from_server) = mpsc::channel(CAPACITY);
    let (to_server, from_gateway) = mpsc::channel(CAPACITY);
    let rows = (kind == LinkKind::Network).then_some(ROWS_IN_TESTS);
    (
        ServerEnd {
            gateway,
            location,
            kind,
            send: to_gateway,
            receive: LinkReceiver::new(from_gateway, rows),
        },
        GatewayEnd { send: to_server, receive: LinkReceiver::new(from_server, rows) },
    )
}
