//! What the kernel tells about a TCP connection.

use nix::sys::socket::{GetSockOpt as _, sockopt::GetStruct};
use std::{io, os::fd::AsFd};

/// The beginning of the kernel's `struct tcp_info` (`linux/tcp.h`), which only ever grows at its end. Linux 4.9 has all
/// of this.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct TcpInfo {
    _state: [u8; 3],
    pub(crate) probes: u8,
    _options: [u8; 4],
    _timers_and_sizes: [u32; 4],
    /// Segments.
    pub(crate) unacknowledged: u32,
    _losses: [u32; 4],
    _last_data: [u32; 3],
    /// Milliseconds.
    pub(crate) last_acknowledgement: u32,
    _path: [u32; 6],
    /// Bytes: the largest segment that this end accepts.
    pub(crate) advertised_segment: u32,
    _receiver: [u32; 4],
    _pacing: [u64; 2],
    pub(crate) bytes_acknowledged: u64,
    _bytes_received: u64,
    _segments: [u32; 2],
    pub(crate) not_sent_bytes: u32,
    /// Microseconds: the shortest of the last minutes.
    pub(crate) min_rtt: u32,
}

#[derive(Clone, Copy)]
struct TcpInfoOption;

nix::getsockopt_impl!(TcpInfoOption, libc::IPPROTO_TCP, libc::TCP_INFO, TcpInfo, GetStruct<TcpInfo>);

/// # Errors
///
/// The socket is not a TCP connection.
pub(crate) fn tcp_info(tcp: &impl AsFd) -> io::Result<TcpInfo> {
    Ok(TcpInfoOption.get(tcp)?)
}
