//! Both ends of a link inside one process, joined by bounded channels.

use crate::{FromGateway, ToGateway, codec};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;
use wicketgate_model::{GatewayId, LocationId};

/// Messages that may wait in one direction. A gateway that is slow to take the next delta makes the server wait; a
/// delta covers everything since the one before, so nothing piles up behind it.
const CAPACITY: usize = 64;

/// The server's end of a link.
#[derive(Debug)]
pub struct ServerEnd {
    pub gateway: GatewayId,
    pub location: LocationId,
    pub send: mpsc::Sender<ToGateway>,
    pub receive: LinkReceiver<FromGateway>,
}

/// The gateway's end of a link.
#[derive(Debug)]
pub struct GatewayEnd {
    pub send: mpsc::Sender<FromGateway>,
    pub receive: LinkReceiver<ToGateway>,
}

/// What arrives at one end, in order.
#[derive(Debug)]
pub struct LinkReceiver<M> {
    messages: mpsc::Receiver<M>,
    /// Passes each message through the codec, as a network would.
    is_encoded: bool,
}

impl<M: Serialize + DeserializeOwned> LinkReceiver<M> {
    /// The next message; `None` once the other end is closed, or has sent what the codec refuses. Cancel-safe.
    pub async fn recv(&mut self) -> Option<M> {
        self.messages.recv().await.and_then(|message| self.arrive(message))
    }

    /// A message that is there already.
    pub fn try_recv(&mut self) -> Option<M> {
        self.messages.try_recv().ok().and_then(|message| self.arrive(message))
    }

    fn arrive(&self, message: M) -> Option<M> {
        if !self.is_encoded {
            return Some(message);
        }
        codec::encode(&message).and_then(|bytes| codec::decode(&bytes)).ok()
    }
}

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
