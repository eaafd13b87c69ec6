//! Both ends of a link inside one process, joined by bounded channels.

use crate::{GatewayEnd, LinkReceiver, ServerEnd};
use tokio::sync::mpsc;
use wicketgate_model::{GatewayId, LocationId};

/// Messages that may wait in one direction. A slow gateway makes the server wait with the next delta, which then covers
/// all changes since the last one: the number of waiting deltas does not grow.
const CAPACITY: usize = 64;

/// Joins the two ends; messages are moved.
pub fn in_process(gateway: GatewayId, location: LocationId) -> (ServerEnd, GatewayEnd) {
    join(gateway, location, false)
}

/// As [`in_process`], and every message is encoded and decoded on its way: for tests.
pub fn in_process_encoded(gateway: GatewayId, location: LocationId) -> (ServerEnd, GatewayEnd) {
    join(gateway, location, true)
}

fn join(gateway: GatewayId, location: LocationId, is_encoded: bool) -> (ServerEnd, GatewayEnd) {
    let (to_gateway, from_server) = mpsc::channel(CAPACITY);
    let (to_server, from_gateway) = mpsc::channel(CAPACITY);
    let receive = LinkReceiver { messages: from_gateway, is_encoded };
    (
        ServerEnd { gateway, location, send: to_gateway, receive },
        GatewayEnd { send: to_server, receive: LinkReceiver { messages: from_server, is_encoded } },
    )
}
