//! Who has IKE's UDP ports in this network namespace. Tunnels' daemons have namespaces of their own, so it is another program.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::finding::HostFinding;

/// IKE, and IKE behind NAT (RFC 7296 §2.23).
const PORTS: [u16; 2] = [500, 4500];
const CHECK: &str = "ike-ports";

pub(super) fn check() -> HostFinding {
    let tables = ["/proc/net/udp", "/proc/net/udp6"];
    let sockets: BTreeSet<_> = tables
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|table| holding(&table))
        .collect();
    if sockets.is_empty() {
        return HostFinding::pass(CHECK, "no program of this host has UDP 500 or 4500");
    }
    let ports: BTreeSet<_> = sockets.iter().map(|(port, _)| format!("UDP {port}")).collect();
    let inodes = sockets.iter().map(|(_, inode)| *inode).collect();
    HostFinding::warn(
        CHECK,
        format!(
            "{} has {}: packets of tunnels' peers go to their tunnels and not to it, so stop it if it serves the same peers",
            owner(Path::new("/proc"), &inodes).unwrap_or_else(|| "another program".to_owned()),
            ports.into_iter().collect::<Vec<_>>().join(" and "),
        ),
    )
}

/// The ports of `PORTS` in a table of the kernel's, each with its socket's inode.
fn holding(table: &str) -> Vec<(u16, u64)> {
    let read = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let port = u16::from_str_radix(words.next()?.rsplit(':').next()?, 16).ok()?;
        // Remote address, state, queues, timer, retransmissions, user and timeout stand between.
        let inode = words.nth(7)?.parse().ok()?;
        PORTS.contains(&port).then_some((port, inode))
    };
    table.lines().skip(1).filter_map(read).collect()
}

/// The first process that has one of the sockets, as far as this user may see.
fn owner(proc: &Path, inodes: &BTreeSet<u64>) -> Option<String> {
    let links: BTreeSet<_> = inodes.iter().map(|inode| PathBuf::from(format!("socket:[{inode}]"))).collect();
    fs::read_dir(proc).ok()?.flatten().find_map(|process| {
        let id = process.file_name().to_string_lossy().parse::<u32>().ok()?;
        let mut files = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        files.find(|file| fs::read_link(file.path()).is_ok_and(|link| links.contains(&link)))?;
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        Some(format!("{} (process {id})", name.trim_end().escape_debug()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn the_kernels_table_of_sockets_is_read() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            \x20 18: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 41 2 0 0\n\
            \x20 97: 00000000:1194 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 42 2 0 0\n\
            \x20 99: 00000000:01F4 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 43 2 0 0\n";
        assert_eq!(holding(table), [(4500, 42), (500, 43)]);
        assert_eq!(holding("no table\nat all"), []);
    }

    #[test]
    fn the_process_that_has_a_socket_is_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::from(std::os::fd::OwnedFd::from(socket));
        let inode = BTreeSet::from([file.metadata().unwrap().ino()]);
        let id = format!("(process {})", std::process::id());
        assert!(owner(Path::new("/proc"), &inode).is_some_and(|owner| owner.ends_with(&id)));
        assert_eq!(owner(Path::new("/proc"), &BTreeSet::from([u64::MAX])), None);
    }
}
