//! What processes have used, as the kernel counts it.

use std::fs;

use anyhow::{Context, Result};

/// The kernel's clock ticks a second, the same on every Linux that this runs on.
const TICKS: f64 = 100.0;

/// Seconds of CPU that the processes have used, all their threads.
pub(crate) fn cpu(pids: &[u32]) -> Result<f64> {
    let mut ticks = 0;
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name may hold anything; what follows its parenthesis does not.
        let fields = stat.rsplit_once(')').context("no name in /proc/PID/stat")?.1;
        let at = |n: usize| fields.split_whitespace().nth(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        ticks += at(11) + at(12);
    }
    Ok(ticks as f64 / TICKS)
}

/// Bytes of memory that only these processes hold.
pub(crate) fn memory(pids: &[u32]) -> Result<u64> {
    let mut kib = 0;
    for pid in pids {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        for line in rollup.lines().filter(|l| l.starts_with("Private_")) {
            kib += line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(kib * 1024)
}
