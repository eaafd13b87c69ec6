//! What this machine has capacity for: tunnels by its memory and limit of open files, connections by the files that
//! tunnels leave.
//!
//! Invariant: tunnels take at most half of either, so that their traffic has the rest.

use std::{fs, path::Path};

use wicketgate_system::open_files;

/// Memory of a tunnel: its IKE daemon's own, and this process's share.
const TUNNEL_MEMORY: u64 = 6 << 20;
/// Descriptors of a tunnel: its namespace and two sockets in it, its daemon, two connections to it and its directory,
/// some listeners.
const TUNNEL_FILES: u64 = 10;
/// Descriptors reserved for the database, agents' carriers, IKE daemons and programs.
const FILES_KEPT: u64 = 512;
/// A connection needs its own descriptor and a carrier's.
const CONNECTION_FILES: u64 = 2;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// `None`: no limit. Without IPsec, a tunnel is only an address.
    pub(crate) tunnels: Option<u32>,
    pub(crate) connections: usize,
}

impl Capacity {
    /// Raises the limit of open files as far as allowed. `tunnels` is the operator's limit.
    pub(crate) fn find(is_ipsec: bool, tunnels: Option<u32>) -> Self {
        Self::of(is_ipsec, tunnels, memory(), open_files::raise_limit())
    }

    fn of(is_ipsec: bool, tunnels: Option<u32>, memory: Option<u64>, files: u64) -> Self {
        let by_files = files / 4 / TUNNEL_FILES;
        let by_memory = memory.map_or(by_files, |m| m / 2 / TUNNEL_MEMORY);
        let found = || u32::try_from(by_files.min(by_memory).max(1)).unwrap_or(u32::MAX);
        let tunnels = tunnels.or_else(|| is_ipsec.then(found));
        let for_tunnels = if is_ipsec { u64::from(tunnels.unwrap_or_default()) * TUNNEL_FILES } else { 0 };
        let room = files.saturating_sub(FILES_KEPT + for_tunnels).max(files / 2) / CONNECTION_FILES;
        Self { tunnels, connections: usize::try_from(room).unwrap_or(usize::MAX).max(1) }
    }
}

/// The memory limit of this process and its daemons in bytes: the machine's or its control group's, whichever is less.
fn memory() -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let own = read(Path::new("/proc/self/cgroup")).and_then(|groups| {
        let group = groups.lines().find_map(|line| line.strip_prefix("0::/").map(str::to_owned))?;
        read(&Path::new("/sys/fs/cgroup").join(group).join("memory.max"))?.trim().parse().ok()
    });
    [total(&read(Path::new("/proc/meminfo")).unwrap_or_default()), own].into_iter().flatten().min()
}

/// `MemTotal:       24689764 kB`
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scarcer_of_memory_and_file_descriptors_is_the_limit() {
        let of = |memory: u64, files| Capacity::of(true, None, Some(memory << 20), files);
        assert_eq!(of(24 << 10, 20_000), Capacity { tunnels: Some(500), connections: 7244 });
        assert_eq!(of(1 << 10, 1 << 20).tunnels, Some(85));
        assert_eq!(of(1, 1024), Capacity { tunnels: Some(1), connections: 256 });
        assert_eq!(Capacity::of(true, Some(7), None, 20_000).tunnels, Some(7));
        // Without IPsec, tunnels need no memory of their own.
        let off = Capacity::of(false, None, None, 20_000);
        assert_eq!(off, Capacity { tunnels: None, connections: 9744 });
    }

    #[test]
    fn the_kernels_notation_of_memory_is_read() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2 << 20));
        assert_eq!(total("MemTotal: much"), None);
        assert!(memory().is_some());
    }
}
