//! What this machine has capacity for: tunnels by its memory and limit of open files, and traffic by the descriptors that
//! they leave of the process's [`DescriptorBudget`].
//!
//! Invariant: tunnels take at most half of the memory and a quarter of the descriptors, so that their traffic has the rest.

use std::{fs, path::Path};

use wicketgate_system::descriptor_budget::DescriptorBudget;

/// Memory of a tunnel: its IKE daemon's own, and this process's share.
const TUNNEL_MEMORY: u64 = 6 << 20;
/// Descriptors of a tunnel: its namespace and two sockets in it, its daemon, two connections to it and its directory.
const TUNNEL_FILES: u64 = 10;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// `None`: no limit. Without IPsec, a tunnel is only an address.
    pub(crate) tunnels: Option<u32>,
    /// Descriptors of listeners, connections and carriers.
    pub(crate) traffic: usize,
}

impl Capacity {
    /// `tunnels` is the operator's limit.
    pub(crate) fn find(budget: &DescriptorBudget, is_ipsec: bool, tunnels: Option<u32>) -> Self {
        Self::of(budget, is_ipsec, tunnels, memory())
    }

    fn of(budget: &DescriptorBudget, is_ipsec: bool, tunnels: Option<u32>, memory: Option<u64>) -> Self {
        let by_files = budget.files / 4 / TUNNEL_FILES;
        let by_memory = memory.map_or(by_files, |m| m / 2 / TUNNEL_MEMORY);
        let found = || u32::try_from(by_files.min(by_memory).max(1)).unwrap_or(u32::MAX);
        let tunnels = tunnels.or_else(|| is_ipsec.then(found));
        let for_tunnels = if is_ipsec { u64::from(tunnels.unwrap_or_default()) * TUNNEL_FILES } else { 0 };
        let traffic = budget.rest().saturating_sub(for_tunnels).max(budget.files / 4);
        Self { tunnels, traffic: usize::try_from(traffic).unwrap_or(usize::MAX) }
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
        let of =
            |memory: u64, files| Capacity::of(&DescriptorBudget::of(files), true, None, Some(memory << 20));
        assert_eq!(of(24 << 10, 20_000), Capacity { tunnels: Some(500), traffic: 13_796 });
        assert_eq!(of(1 << 10, 1 << 20).tunnels, Some(85));
        assert_eq!(of(1, 1024), Capacity { tunnels: Some(1), traffic: 662 });
        let budget = DescriptorBudget::of(20_000);
        assert_eq!(Capacity::of(&budget, true, Some(7), None).tunnels, Some(7));
        // Traffic keeps a part, whatever the operator's limit is.
        assert_eq!(Capacity::of(&budget, true, Some(16_000), None).traffic, 5000);
        // Without IPsec, tunnels need no memory of their own.
        let off = Capacity::of(&budget, false, None, None);
        assert_eq!(off, Capacity { tunnels: None, traffic: 18_796 });
    }

    #[test]
    fn the_kernels_notation_of_memory_is_read() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2 << 20));
        assert_eq!(total("MemTotal: much"), None);
        assert!(memory().is_some());
    }
}
