//! Who has IKE's UDP ports in this network namespace. Tunnels' daemons have namespaces of their own, so it is another program.

use std::collections::BTreeSet;

use wicketgate_system::sockets::{self, HostProcess};

use super::finding::HostFinding;

/// IKE, and IKE behind NAT (RFC 7296 §2.23).
const PORTS: [u16; 2] = [500, 4500];
const CHECK: &str = "ike-ports";

pub(super) fn check() -> HostFinding {
    let mut sockets = sockets::udp().unwrap_or_default();
    sockets.retain(|socket| PORTS.contains(&socket.address.port()));
    if sockets.is_empty() {
        return HostFinding::pass(CHECK, "no program of this host has UDP 500 or 4500");
    }
    let ports: BTreeSet<_> = sockets.iter().map(|socket| format!("UDP {}", socket.address.port())).collect();
    let holder = HostProcess::with(&sockets);
    HostFinding::warn(
        CHECK,
        format!(
            "{} has {}: packets of tunnels' peers go to their tunnels and not to it, so stop it if it serves the same peers",
            holder.map_or_else(|| "another program".to_owned(), |holder| holder.to_string()),
            ports.into_iter().collect::<Vec<_>>().join(" and "),
        ),
    )
}
