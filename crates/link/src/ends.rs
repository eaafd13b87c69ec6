//! The two ends of a link that is not open yet.

use crate::{FromGateway, GatewayHello, Handshake, LinkReceiver, ServerHello, ToGateway};
use tokio::sync::mpsc;
use wicketgate_model::{GatewayId, LocationId};

/// How the ends of a link are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// In one process: the link lasts as long as the gateway, and what is sent has no cost.
    InProcess,
    /// Over a network: the gateway may have had another link before, and have what was sent over it.
    Network,
}

/// The server's end of a link that is not open yet.
#[derive(Debug)]
pub struct ServerEnd {
    pub gateway: GatewayId,
    pub location: LocationId,
    pub kind: LinkKind,
    pub(crate) send: mpsc::Sender<ToGateway>,
    pub(crate) receive: LinkReceiver<FromGateway>,
}

/// The gateway's end of a link that is not open yet.
#[derive(Debug)]
pub struct GatewayEnd {
    pub(crate) send: mpsc::Sender<FromGateway>,
    pub(crate) receive: LinkReceiver<ToGateway>,
}

impl ServerEnd {
    /// Sends the hello; everything else follows it.
    pub fn open(self, hello: ServerHello) -> (mpsc::Sender<ToGateway>, Handshake<FromGateway>) {
        let Self { send, receive, .. } = self;
        begin(&send, ToGateway::Hello(hello));
        (send, Handshake(receive))
    }
}

impl GatewayEnd {
    /// Sends the hello; everything else follows it.
    pub fn open(self, hello: GatewayHello) -> (mpsc::Sender<FromGateway>, Handshake<ToGateway>) {
        begin(&self.send, FromGateway::Hello(hello));
        (self.send, Handshake(self.receive))
    }
}

/// Sends the first message. The channel is empty; if the other end is gone, the handshake reports that.
fn begin<M>(send: &mpsc::Sender<M>, hello: M) {
    let _ = send.try_send(hello);
}
