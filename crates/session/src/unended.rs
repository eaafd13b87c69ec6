//! A TCP connection whose stream has not ended in order yet.
//!
//! Invariant: however it goes, be it dropped or be it that its process is killed, the kernel closes it with a reset. Only
//! [`Unended::end`] makes a clean end of it: a peer never takes what it has for the whole.

use socket2::SockRef;
use std::time::Duration;
use tokio::net::TcpStream;

/// See the module.
#[derive(Debug)]
pub struct Unended(TcpStream);

impl Unended {
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
