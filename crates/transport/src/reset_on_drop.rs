//! A TCP connection whose stream has not ended in order yet.
//!
//! Invariant: however it goes, be it dropped or be it that its process is killed, the kernel closes it with a reset. Only
//! [`ResetOnDrop::end`] makes a clean end of it: a peer never takes what it has for the whole.

use socket2::SockRef;
use std::{io, os::fd::AsFd, time::Duration};
use tokio::net::TcpStream;

/// See the module.
#[derive(Debug)]
pub struct ResetOnDrop(TcpStream);

/// Lets all connections of the listener begin as [`ResetOnDrop`], so that it takes no call for each of them. Those that came
/// before, also into its queue, do not.
pub fn prepare_listener(listener: &impl AsFd) -> io::Result<()> {
    SockRef::from(listener).set_linger(Some(Duration::ZERO))
}

impl ResetOnDrop {
    /// A connection of a listener that [`prepare_listener`] was told of: Linux has it inherit what the listener was set to.
    pub fn accepted(tcp: TcpStream) -> Self {
        Self(tcp)
    }

    pub fn new(tcp: TcpStream) -> Self {
        // Fails only where the connection is gone already.
        let _ = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
        Self(tcp)
    }

    pub fn tcp(&mut self) -> &mut TcpStream {
        &mut self.0
    }

    /// Both sides have ended: what is still to be sent is sent, and then it is closed.
    pub fn end(self) {
        let _ = SockRef::from(&self.0).set_linger(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    #[tokio::test]
    async fn a_listener_hands_it_down_to_its_connections() {
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
