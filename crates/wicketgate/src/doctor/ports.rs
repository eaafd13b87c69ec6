//! Whether the TCP ports that `up` listens on are free, or its own already.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
};

use wicketgate_gateway::host_check::HostFinding;
use wicketgate_system::{
    own_directory::OwnDirectory,
    sockets::{self, HostProcess},
};

/// A port of `up`.
#[derive(Debug)]
pub(super) struct ServedPort {
    pub(super) check: &'static str,
    pub(super) address: SocketAddr,
    /// The flag of `up` that chooses it.
    pub(super) flag: &'static str,
}

impl ServedPort {
    pub(super) fn judge(&self, data_dir: &Path) -> HostFinding {
        let Self { check, address, flag } = *self;
        let mut holders = match sockets::listening() {
            Ok(all) => all,
            Err(error) => return HostFinding::warn(check, format!("cannot see who has TCP ports: {error}")),
        };
        holders.retain(|socket| socket.conflicts(address));
        let other = format!("or choose another address with {flag}");
        if holders.is_empty() {
            return match TcpListener::bind(address) {
                Ok(_) => HostFinding::pass(check, format!("{address} is free")),
                Err(error) => HostFinding::fail(
                    check,
                    format!("cannot listen on {address} ({error}): run as root, {other}"),
                ),
            };
        }
        match HostProcess::with(&holders) {
            Some(process) if process.has_open(&OwnDirectory::lock_file(data_dir)) => HostFinding::pass(
                check,
                format!("{address} is served by {process}, which uses this data directory"),
            ),
            Some(process) => HostFinding::fail(check, format!("{process} has {address}: stop it, {other}")),
            None => HostFinding::warn(
                check,
                format!("a process that only root may see has {address}: run as root to see which, {other}"),
            ),
        }
    }
}
