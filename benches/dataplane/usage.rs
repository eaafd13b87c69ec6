//! The resources that processes have used, as counted by the kernel.

use std::fs;

use anyhow::{Context, Result};

/// The kernel's clock ticks per second (USER_HZ), which are the same on all supported platforms.
const TICKS: f64 = 100.0;

/// The CPU seconds that all threads of the processes have used.
pub(crate) fn cpu(pids: &[u32]) -> Result<f64> {
    let mut ticks = 0;
    for pid in pids {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The process name may contain any characters. The fields begin after its closing parenthesis.
        let fields = stat.rsplit_once(')').context("/proc/PID/stat has no process name")?.1;
        let at = |n: usize| fields.split_whitespace().nth(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        ticks += at(11) + at(12);
    }
    Ok(ticks as f64 / TICKS)
}

/// The private memory of the processes in bytes.
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
