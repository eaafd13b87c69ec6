//! Who has IKE's UDP ports in this network namespace. Tunnels' daemons have namespaces of their own, so it is another program.

use std::{collections::BTreeSet, io};

use wicketgate_system::sockets::{self, HostProcess, LocalSocket};

use super::finding::HostFinding;

/// IKE, and IKE behind NAT (RFC 7296 §2.23).
const PORTS: [u16; 2] = [500, 4500];
const CHECK: &str = "ike-ports";

pub(super) fn check() -> HostFinding {
    judge(sockets::udp())
}

fn judge(found: io::Result<Vec<LocalSocket>>) -> HostFinding {
    let mut sockets = match found {
        Ok(all) => all,
        Err(error) => return HostFinding::warn(CHECK, format!("cannot see who has UDP ports: {error}")),
    };
    sockets.retain(|socket| PORTS.contains(&socket.address.port()));
    if sockets.is_empty() {
        return HostFinding::pass(CHECK, "no program of this host has UDP 500 or 4500");
    }
    let ports: BTreeSet<_> = sockets.iter().map(|socket| format!("UDP {}", socket.address.port())).collect();
    let holder = sockets.iter().find_map(|socket| HostProcess::with(socket).into_iter().next());
    HostFinding::warn(
        CHECK,
        format!(
            "{} has {}: packets of tunnels' peers go to their tunnels and not to it, so stop it if it serves the same peers",
            holder.map_or_else(|| "another program".to_owned(), |holder| holder.to_string()),
            ports.into_iter().collect::<Vec<_>>().join(" and "),
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::{super::finding::HostVerdict, *};

    #[test]
    fn a_table_that_cannot_be_read_is_no_free_port() {
        let finding = judge(Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(finding.verdict, HostVerdict::Warn, "{}", finding.message);
        assert_eq!(judge(Ok(Vec::new())).verdict, HostVerdict::Pass);
    }
}
