//! The two ends of a link that is not open yet.

use crate::{FromGateway, GatewayHello, Handshake, LinkReceiver, ToGateway, VERSIONS};
use tokio::sync::mpsc;
use wicketgate_model::{GatewayId, LocationId};

/// The server's end of a link that is not open yet.
#[derive(Debug)]
pub struct ServerEnd {
    pub gateway: GatewayId,
    pub location: LocationId,
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
    pub fn open(self) -> (mpsc::Sender<ToGateway>, Handshake<FromGateway>) {
        let Self { send, receive, .. } = self;
        begin(&send, ToGateway::Hello(VERSIONS));
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
