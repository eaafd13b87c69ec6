//! An established connection of a carrier: TCP and the two directions of its record layer.

use super::{
    incoming::Incoming,
    record::{RecordSealer, TrafficKeys},
};
use std::{fmt, io};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

/// An established connection, either end of it.
pub(crate) struct RecordStream {
    pub(crate) tcp: TcpStream,
    pub(crate) keys: TrafficKeys,
    pub(crate) seal: RecordSealer,
    pub(crate) input: Incoming,
}

impl RecordStream {
    /// Ends the connection in order.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        let end = self.seal.close_notify()?;
        self.tcp.write_all(&end).await?;
        self.tcp.shutdown().await
    }
}

impl fmt::Debug for RecordStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordStream({:?})", self.tcp.peer_addr())
    }
}
