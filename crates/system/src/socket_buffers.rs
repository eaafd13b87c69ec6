//! Limits of what the kernel buffers for one TCP connection.
//!
//! The kernel lets buffers grow with what the connection was able to move at its best moment, and does not shrink them. Needs
//! Linux 5.15: before that, a limited buffer would never grow by itself again, so nothing is limited.

use crate::tcp_info::tcp_info;
use nix::sys::socket::{
    GetSockOpt as _, SetSockOpt as _,
    sockopt::{RcvBuf, RcvBufForce, SetStruct},
};
use std::{io, net::IpAddr, os::fd::AsFd, time::Duration};

/// Where a buffer that is not limited any more starts to grow, if the process may set that. Otherwise, it is
/// `net.core.rmem_max`.
const FREE_FROM: usize = 4 << 20;
/// Bytes. More than the first flight of a peer.
const FIRST_WINDOW: usize = 16 << 10;
/// Bytes: of more than that, too few fit into the first window, as on a loopback interface.
const LARGE_SEGMENT: u32 = 8 << 10;
/// Microseconds of a round trip within a network. A longer one would show: an object of 300 KB takes twenty.
const NEAR: u32 = 500;
/// `SOCK_RCVBUF_LOCK` of `linux/socket.h`.
const RECEIVE: libc::c_int = 2;

#[derive(Clone, Copy)]
struct BufferLock;
nix::setsockopt_impl!(
    BufferLock,
    libc::SOL_SOCKET,
    libc::SO_BUF_LOCK,
    libc::c_int,
    SetStruct<'_, libc::c_int>
);

#[derive(Clone, Copy)]
struct WindowClamp;
nix::setsockopt_impl!(
    WindowClamp,
    libc::IPPROTO_TCP,
    libc::TCP_WINDOW_CLAMP,
    libc::c_int,
    SetStruct<'_, libc::c_int>
);

#[derive(Clone, Copy)]
struct NotSent;
nix::setsockopt_impl!(NotSent, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, u32, SetStruct<'_, u32>);

/// The shortest round trip of the last minutes, as TCP measured it.
///
/// # Errors
///
/// The socket is not a TCP connection.
pub fn round_trip(tcp: &impl AsFd) -> io::Result<Duration> {
    Ok(Duration::from_micros(tcp_info(tcp)?.min_rtt.into()))
}

/// Bytes that the destination of a connection has acknowledged.
///
/// # Errors
///
/// The socket is not a TCP connection.
pub fn acknowledged(tcp: &impl AsFd) -> io::Result<u64> {
    Ok(tcp_info(tcp)?.bytes_acknowledged)
}

/// Before a socket connects: has the peer see a window of [`FIRST_WINDOW`]. Without that, a peer in the same network is told of 64 KiB,
/// fills its own buffer at that network's speed in the first milliseconds, and keeps it so large. Returns the size of the buffer
/// before, for [`settle_receive_buffer`].
///
/// # Errors
///
/// The peer is on this host, whose segments can be larger than such a window; or the kernel cannot undo it.
pub fn begin_small(tcp: &impl AsFd, peer: IpAddr) -> io::Result<usize> {
    if peer.to_canonical().is_loopback() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let size = RcvBuf.get(tcp)?;
    // Before anything changes: a size that was set, and cannot be unlocked, would limit the window for ever.
    BufferLock.set(tcp, &0)?;
    RcvBuf.set(tcp, &FIRST_WINDOW)?;
    BufferLock.set(tcp, &0)?;
    Ok(size)
}

/// After it has connected: gives it back the size that it had, unless the peer is near and its segments are small. The first
/// flight of a peer that is far away (RFC 6928: 10 segments) fits into the first window, too.
///
/// # Errors
///
/// The connection has ended.
pub fn settle_receive_buffer(tcp: &impl AsFd, size: usize) -> io::Result<()> {
    let info = tcp_info(tcp)?;
    if info.min_rtt > NEAR || info.advertised_segment > LARGE_SEGMENT {
        RcvBuf.set(tcp, &(size / 2))?;
        return Ok(BufferLock.set(tcp, &0)?);
    }
    // The kernel would let it grow with the first bytes, before a limit is set.
    Ok(BufferLock.set(tcp, &RECEIVE)?)
}

/// Keeps the receive buffer from growing. Returns its size, in bytes with the kernel's overhead.
///
/// # Errors
///
/// The kernel cannot undo it.
pub fn freeze_receive_buffer(tcp: &impl AsFd) -> io::Result<u64> {
    BufferLock.set(tcp, &RECEIVE)?;
    Ok(RcvBuf.get(tcp)? as u64)
}

/// Lets the kernel grow the receive buffer again.
///
/// # Errors
///
/// The connection has ended.
fn unfreeze_receive_buffer(tcp: &impl AsFd) -> io::Result<()> {
    Ok(BufferLock.set(tcp, &0)?)
}

/// Makes a frozen receive buffer larger, in bytes with the kernel's overhead.
///
/// # Errors
///
/// The connection has ended.
pub fn grow_receive_buffer(tcp: &impl AsFd, bytes: u64) -> io::Result<()> {
    // The kernel doubles it.
    RcvBuf.set(tcp, &usize::try_from(bytes / 2).unwrap_or(usize::MAX))?;
    Ok(WindowClamp.set(tcp, &libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX))?)
}

/// Makes a frozen receive buffer large, and lets the kernel grow it again.
///
/// # Errors
///
/// The connection has ended.
pub fn free_receive_buffer(tcp: &impl AsFd) -> io::Result<()> {
    if RcvBufForce.set(tcp, &(FREE_FROM / 2)).is_err() {
        RcvBuf.set(tcp, &(FREE_FROM / 2))?;
    }
    WindowClamp.set(tcp, &libc::c_int::MAX)?;
    unfreeze_receive_buffer(tcp)
}

/// Limits what is written and was not sent yet: above it, the socket is not writable. `None`: the system's limit.
///
/// # Errors
///
/// The connection has ended.
pub fn limit_unsent(tcp: &impl AsFd, bytes: Option<u32>) -> io::Result<()> {
    Ok(NotSent.set(tcp, &bytes.unwrap_or(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{self, Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// Bytes that fit on the way to a peer that reads nothing.
    fn fits(mut tcp: &TcpStream) -> usize {
        let (mut all, mut idle) = (0, 0);
        while idle < 3 {
            match tcp.write(&[0; 4096]) {
                Ok(n) => (all, idle) = (all + n, 0),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    idle += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
        }
        all
    }

    #[test]
    fn a_frozen_buffer_holds_little_and_a_free_one_grows() {
        let (client, mut server) = connection();
        let size = freeze_receive_buffer(&server).unwrap();
        limit_unsent(&client, Some(4 << 10)).unwrap();
        let mut frozen = 0;
        // A reader that is fast for a while makes the kernel grow a buffer that is not frozen.
        for _ in 0..100 {
            frozen = fits(&client);
            server.read_exact(&mut vec![0; frozen]).unwrap();
        }
        assert!(frozen as u64 <= 2 * size, "{frozen} of {size}");
        free_receive_buffer(&server).unwrap();
        let free = fits(&client);
        assert!(free > 2 * frozen, "{frozen}, {free}");
        assert!(round_trip(&client).unwrap() > Duration::ZERO);
    }
}
