//! Whether the TCP ports that `up` listens on are free, or its own already.

use std::{
    io,
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
        if holders.is_empty() {
            return match TcpListener::bind(address) {
                Ok(_) => HostFinding::pass(check, format!("{address} is free")),
                Err(error) => HostFinding::fail(
                    check,
                    format!("cannot listen on {address} ({error}): {} {flag}", cure(error.kind())),
                ),
            };
        }
        let holders: Vec<_> = holders.iter().map(HostProcess::with).collect();
        let lock = OwnDirectory::lock_file(data_dir);
        let stranger = holders.iter().flatten().find(|process| !process.has_open(&lock));
        match (stranger, holders.iter().map(|holders| holders.first()).collect::<Option<Vec<_>>>()) {
            (Some(process), _) => HostFinding::fail(
                check,
                format!("{process} has {address}: stop it, or choose another address with {flag}"),
            ),
            (None, Some(own)) => HostFinding::pass(
                check,
                format!("{address} is served by {}, which uses this data directory", own[0]),
            ),
            (None, None) => HostFinding::warn(
                check,
                format!(
                    "a process that only root may see has {address}: run as root to see which, or choose another address \
                     with {flag}"
                ),
            ),
        }
    }
}

/// What to do about an address that cannot be bound, before the flag that chooses another.
fn cure(error: io::ErrorKind) -> &'static str {
    match error {
        io::ErrorKind::PermissionDenied => "run as root, or choose another address with",
        io::ErrorKind::AddrNotAvailable => "no interface of this host has it, so choose another address with",
        _ => "choose another address with",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        os::fd::OwnedFd,
        process::{Command, Stdio},
    };
    use wicketgate_gateway::host_check::HostVerdict;

    fn judge(address: SocketAddr, data_dir: &Path) -> HostFinding {
        ServedPort { check: "api-port", address, flag: "--listen" }.judge(data_dir)
    }

    #[test]
    fn a_port_is_its_own_only_if_all_of_its_holders_are() {
        let data = tempfile::tempdir().unwrap();
        let _lock = File::create(OwnDirectory::lock_file(data.path())).unwrap();
        let own = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut address = own.local_addr().unwrap();
        let other = TcpListener::bind(("127.0.0.2", address.port())).unwrap();
        assert_eq!(judge(address, data.path()).verdict, HostVerdict::Pass);

        // A process that has the socket as its standard input.
        let mut stranger =
            Command::new("sleep").arg("60").stdin(Stdio::from(OwnedFd::from(other))).spawn().unwrap();
        address.set_ip([0, 0, 0, 0].into());
        let finding = judge(address, data.path());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        assert_eq!(finding.verdict, HostVerdict::Fail, "{}", finding.message);
        assert!(finding.message.contains(&format!("(process {})", stranger.id())), "{}", finding.message);
    }

    #[test]
    fn an_address_of_another_host_is_not_had_by_root_either() {
        let elsewhere = judge("192.0.2.1:0".parse().unwrap(), Path::new("/nonexistent"));
        assert_eq!(elsewhere.verdict, HostVerdict::Fail);
        assert!(
            elsewhere.message.contains("no interface of this host") && !elsewhere.message.contains("root")
        );
        assert!(cure(io::ErrorKind::PermissionDenied).contains("run as root"));
    }
}
