//! A TCP connection that is closed with a reset unless its stream has ended in order.
//!
//! Invariant: when it is dropped, or its process is killed, the kernel sends a reset. Only
//! [`ResetOnDrop::end`] closes it in order, so a peer never takes a part of a transfer for all of it.

use socket2::SockRef;
use std::{io, os::fd::AsFd, time::Duration};
use tokio::net::TcpStream;

/// See the module.
#[derive(Debug)]
pub struct ResetOnDrop(TcpStream);

/// Lets all later connections of the listener start as [`ResetOnDrop`], which saves a system call for each. Connections
/// that are in its queue already do not.
pub fn prepare_listener(listener: &impl AsFd) -> io::Result<()> {
    SockRef::from(listener).set_linger(Some(Duration::ZERO))
}

impl ResetOnDrop {
    /// A connection of a [prepared](prepare_listener) listener: on Linux it inherits the listener's option.
    pub fn accepted(tcp: TcpStream) -> Self {
        Self(tcp)
    }

    pub fn new(tcp: TcpStream) -> Self {
        // Fails only if the connection has ended already.
        let _ = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
        Self(tcp)
    }

    pub fn tcp(&mut self) -> &mut TcpStream {
        &mut self.0
    }

    /// Both sides have ended: closes the connection in order, after sending what is left.
    pub fn end(self) {
        let _ = SockRef::from(&self.0).set_linger(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    #[tokio::test]
    async fn accepted_connections_inherit_the_option_from_the_listener() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        prepare_listener(&listener).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        for ends in [false, true] {
            let client = TcpStream::connect(listener.local_addr().unwrap());
            let (client, accepted) = tokio::join!(client, listener.accept());
            let accepted = ResetOnDrop::accepted(accepted.unwrap().0);
            if ends {
                accepted.end()
            } else {
                drop(accepted)
            }
            let got = client.unwrap().read(&mut [0]).await;
            assert_eq!(
                got.map_err(|e| e.kind()),
                if ends { Ok(0) } else { Err(io::ErrorKind::ConnectionReset) }
            );
        }
    }
}
