//! Accepting TCP connections.
//!
//! Invariant: an error of one connection does not delay the next one. A lack of descriptors or memory pauses the
//! listener: it lasts until something is closed, and an immediate retry would only occupy a core.

use crate::Outage;
use rustix::{
    io::Errno,
    net::{Shutdown, listen, shutdown},
};
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

    /// Closes the port until `opened` is ready, and keeps it bound if it was bound by its number: the kernel resets what arrives,
    /// and connections that were not accepted yet.
    ///
    /// # Errors
    ///
    /// The runtime is shutting down.
    pub async fn close_until(mut self, opened: impl Future<Output = ()>, backlog: i32) -> io::Result<Self> {
        // Linux ends the listening and keeps address and options. The runtime would take the socket for ended for ever.
        let listener = self.listener.into_std()?;
        shutdown(&listener, Shutdown::Read)?;
        opened.await;
        while let Err(error) = listen(&listener, backlog) {
            if self.outage.failed() {
                warn!(%error, "cannot open a port to {} again; retrying", self.peers);
            }
            sleep(PAUSE).await;
        }
        Ok(Self { listener: TcpListener::from_std(listener)?, ..self })
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
    use rustix::net::sockopt::{set_socket_linger, socket_linger};
    use tokio::{io::AsyncReadExt as _, sync::oneshot};

    #[tokio::test]
    async fn a_closed_port_resets_and_serves_again_with_its_options() {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        set_socket_linger(&listener, Some(Duration::ZERO)).unwrap();
        let mut acceptor = Acceptor::new(TcpListener::from_std(listener).unwrap(), "tests");
        for _ in 0..3 {
            let _client = TcpStream::connect(address).await.unwrap();
            let (accepted, _) = acceptor.next().await;
            assert_eq!(socket_linger(&accepted).unwrap(), Some(Duration::ZERO));
            let mut waiting = TcpStream::connect(address).await.unwrap();
            let (open, opened) = oneshot::channel();
            let closed = tokio::spawn(acceptor.close_until(async { opened.await.unwrap() }, 16));
            let end = waiting.read(&mut [0]).await.unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
            let refused = TcpStream::connect(address).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            open.send(()).unwrap();
            acceptor = closed.await.unwrap().unwrap();
        }
        // Nothing is left of what was closed: an idle listener waits.
        let idle = tokio::time::timeout(Duration::from_millis(50), acceptor.next()).await;
        assert!(idle.is_err());
    }

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
