//! Shortages of the agent's own process and host, which are not faults of a target.

use rustix::io::Errno;
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};
use tracing::warn;
use wicketgate_system::open_files;

/// With fewer, an agent that is used much runs out of them: a connection takes two.
const FEW_FILES: u64 = 8192;

/// What is missing, and the cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Shortage {
    #[error(
        "the agent has no free file descriptor: raise its hard limit of open files (LimitNOFILE= in its systemd unit, \
         or ulimit -Hn), or start another agent"
    )]
    OpenFiles,
    #[error("the agent's host has no free file: raise fs.file-max there")]
    HostFiles,
    #[error(
        "the agent's host has no free source port for connections to the target: widen \
         net.ipv4.ip_local_port_range there, or start another agent on another host"
    )]
    SourcePorts,
    #[error("the agent's host has no memory for another connection: give it more")]
    Memory,
    #[error(
        "the agent cannot start another thread to look up a name: repair the name servers of its host, or raise its limit \
         of tasks (TasksMax= in its systemd unit)"
    )]
    Threads,
}

impl Shortage {
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error)? {
            Errno::MFILE => Some(Self::OpenFiles),
            Errno::NFILE => Some(Self::HostFiles),
            Errno::NOBUFS | Errno::NOMEM => Some(Self::Memory),
            _ => None,
        }
    }

    /// Of the error of a dial.
    pub(crate) fn of_dial(error: &io::Error, to: SocketAddr) -> Option<Self> {
        match Errno::from_io_error(error)? {
            // Also the error of a host without a source address for the target. Then UDP has none either.
            Errno::ADDRNOTAVAIL => has_source_address(to).then_some(Self::SourcePorts),
            _ => Self::of(error),
        }
    }
}

/// Sends no packet.
fn has_source_address(to: SocketAddr) -> bool {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    UdpSocket::bind(any).and_then(|socket| socket.connect(to)).is_ok()
}

/// Raises the soft limit of open files, and warns if the hard limit is low.
pub(crate) fn raise_limits() {
    let files = open_files::raise_limit();
    if files < FEW_FILES {
        warn!(
            limit = files,
            "the limit of open files is low: at most {} connections are possible at a time; raise LimitNOFILE= in the \
             agent's systemd unit, or ulimit -Hn",
            files / 2
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_source_address_is_not_short_of_ports() {
        let missing = io::Error::from(Errno::ADDRNOTAVAIL);
        let here = "127.0.0.1:1".parse().unwrap();
        assert_eq!(Shortage::of_dial(&missing, here), Some(Shortage::SourcePorts));
        // UDP cannot broadcast unless it asks for it, so there is no connection either.
        let nowhere = "255.255.255.255:1".parse().unwrap();
        assert_eq!(Shortage::of_dial(&missing, nowhere), None);
        assert_eq!(Shortage::of_dial(&io::Error::from(Errno::CONNREFUSED), here), None);
        assert_eq!(Shortage::of(&io::Error::from(Errno::MFILE)), Some(Shortage::OpenFiles));
    }
}
