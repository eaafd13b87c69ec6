//! An established connection of a carrier: TCP and the two directions of its record layer.

use super::{
    incoming::Incoming,
    record::{RecordSealer, TrafficKeys},
};
use std::fmt;
use tokio::net::TcpStream;

/// An established connection, either end of it.
pub(crate) struct RecordStream {
    pub(crate) tcp: TcpStream,
    pub(crate) keys: TrafficKeys,
    pub(crate) seal: RecordSealer,
    pub(crate) input: Incoming,
}

impl RecordStream {
    /// Ends the connection in order. Waits for nothing: if the peer takes no more bytes, it notices the end without the
    /// message.
    pub(crate) fn close(mut self) {
        if let Ok(end) = self.seal.close_notify() {
            let _ = self.tcp.try_write(&end);
        }
    }
}

impl fmt::Debug for RecordStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordStream({:?})", self.tcp.peer_addr())
    }
}
