//! Accepting TCP connections.
//!
//! Invariant: an error of one connection does not delay the next one. A lack of descriptors or memory pauses the
//! listener: it lasts until something is closed, and an immediate retry would only occupy a core.

use crate::Outage;
use rustix::io::Errno;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tracing::{debug, info, warn};

/// Short compared to a TCP handshake's retries, long enough to cost no CPU time.
const PAUSE: Duration = Duration::from_millis(50);

/// A listener that returns connections, never errors.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    /// The name of the clients in log events, in the plural.
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

/// Pending errors of the connection itself, after which accept(2) advises to retry ("Error handling"). EPERM and
/// EOPNOTSUPP are of that list too, but may persist: a retry without a pause would take a whole processor.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::INTR
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::NONET
                | Errno::NOPROTOOPT
                | Errno::PROTO
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_may_persist_pause_the_listener() {
        let is_of_the_connection = |errno: Errno| is_of_the_connection(&errno.into());
        for errno in [Errno::PROTO, Errno::HOSTDOWN, Errno::NETDOWN, Errno::CONNABORTED, Errno::HOSTUNREACH] {
            assert!(is_of_the_connection(errno), "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::PERM] {
            assert!(!is_of_the_connection(errno), "{errno}");
        }
    }
}
