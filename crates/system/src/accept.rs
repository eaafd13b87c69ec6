//! Accepting TCP connections.
//!
//! Invariant: an error of one connection costs nothing, while a lack of descriptors or memory pauses the listener: it
//! lasts until something is closed, and accepting at once again would only occupy a core.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tracing::{debug, info, warn};

use crate::Outage;

/// Short enough that nobody notices it in the rate of new connections, long enough to cost no CPU time.
const PAUSE: Duration = Duration::from_millis(50);

/// A listener that returns connections, never errors.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    /// Who connects, in the plural: for log events.
    peers: &'static str,
    outage: Outage,
}

impl Acceptor {
    pub fn new(listener: TcpListener, peers: &'static str) -> Self {
        Self { listener, peers, outage: Outage::default() }
    }

    /// The next connection. Cancel-safe.
    pub async fn next(&mut self) -> (TcpStream, SocketAddr) {
        let peers = self.peers;
        loop {
            match self.listener.accept().await {
                Ok(accepted) => {
                    if self.outage.recovered() {
                        info!("connections from {peers} are accepted again");
                    }
                    return accepted;
                }
                Err(error) if is_of_the_connection(&error) => {
                    debug!(%error, "a connection from {peers} ended before it was accepted");
                }
                Err(error) => {
                    if self.outage.failed() {
                        warn!(%error, "cannot accept connections from {peers}; retrying until descriptors are free");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Errors that `accept` passes on from the connection at the head of its queue (accept(2), "Error handling").
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable,
    };
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | HostUnreachable | NetworkDown | NetworkUnreachable
    )
}
