//! What the kernel still has to deliver of a TCP connection.
//!
//! A write that succeeds has reached the kernel, not the peer. Whoever limits the time without progress has to look
//! here too.

use crate::tcp_info::tcp_info;
use std::{io, os::fd::AsFd, time::Duration};

/// The kernel's send queue of a TCP connection at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendQueue {
    /// Bytes that the peer has acknowledged since the connection was made.
    pub acknowledged: u64,
    /// Nothing waits for its first transmission or its acknowledgement.
    pub is_empty: bool,
    /// Bytes were sent and not acknowledged. Otherwise, what is left waits for room at the peer.
    pub is_unacknowledged: bool,
    /// Probes for room that the peer has not answered.
    pub probes: u8,
    /// The time since the peer's last acknowledgement of anything, probes included.
    pub last_answer: Duration,
}

/// # Errors
///
/// The socket is not a TCP connection.
pub fn send_queue(tcp: &impl AsFd) -> io::Result<SendQueue> {
    let info = tcp_info(tcp)?;
    let is_unacknowledged = info.unacknowledged > 0;
    Ok(SendQueue {
        acknowledged: info.bytes_acknowledged,
        is_empty: !is_unacknowledged && info.not_sent_bytes == 0,
        is_unacknowledged,
        probes: info.probes,
        last_answer: Duration::from_millis(info.last_acknowledgement.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        time::{Duration, Instant},
    };

    /// Waits until the queue is as it should be.
    fn until(tcp: &TcpStream, is: impl Fn(&SendQueue) -> bool) -> SendQueue {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let queue = send_queue(tcp).unwrap();
            if is(&queue) {
                return queue;
            }
            assert!(Instant::now() < end, "{queue:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn the_queue_holds_what_the_peer_has_no_room_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut reader = listener.accept().unwrap().0;
        assert!(send_queue(&sender).unwrap().is_empty);

        sender.write_all(&[7; 1000]).unwrap();
        let before = until(&sender, |queue| queue.is_empty).acknowledged;
        assert!(before >= 1000, "{before}");

        sender.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(n) = sender.write(&[7; 65536]) {
            written += n;
        }
        let full = until(&sender, |queue| !queue.is_empty);
        let mut got = 0;
        while got < 1000 + written {
            got += reader.read(&mut [0; 65536]).unwrap();
        }
        let read = until(&sender, |queue| queue.is_empty);
        assert!(read.acknowledged > full.acknowledged);
        assert_eq!(read.acknowledged, before + written as u64);
    }

    #[test]
    fn a_socket_without_tcp_is_an_error() {
        assert!(send_queue(&std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).is_err());
    }
}
