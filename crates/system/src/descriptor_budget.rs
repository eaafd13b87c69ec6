//! What the descriptors of a process that serves the API and runs a gateway are for.
//!
//! Invariant: the parts together are not more than the limit of open files, so that a gateway that is full of one of them still
//! has the others: it answers its API and its probes, and its agents can connect.

use crate::open_files;

/// For the database, the log, the kernel's interfaces, programs that are started, and clients of `/metrics`.
const PROCESS: u64 = 192;
/// Far more than an API needs.
const API: u64 = 512;
const FEWEST_HANDSHAKES: u64 = 32;
const MOST_HANDSHAKES: u64 = 1024;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorBudget {
    /// The limit of open files.
    pub files: u64,
    /// Connections to the API at one time.
    pub api: u64,
    /// Connections to the agent port that have no identity yet.
    pub handshakes: u64,
}

impl DescriptorBudget {
    /// Raises the limit of open files as far as allowed.
    pub fn find() -> Self {
        Self::of(open_files::raise_limit())
    }

    pub fn of(files: u64) -> Self {
        let handshakes = (files / 40).clamp(FEWEST_HANDSHAKES, MOST_HANDSHAKES);
        Self { files, api: API.min(files / 8), handshakes }
    }

    /// What is left for tunnels and their traffic.
    pub fn rest(&self) -> u64 {
        let process = PROCESS.min(self.files / 4);
        self.files.saturating_sub(process + self.api + self.handshakes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_limit_leaves_most_for_traffic() {
        for files in [256, 1024, 20_000, 1 << 20] {
            let budget = DescriptorBudget::of(files);
            assert!(budget.rest() >= files / 2 - files / 16, "{budget:?}");
            assert!(budget.api >= 32 && budget.handshakes >= 32);
        }
    }
}
