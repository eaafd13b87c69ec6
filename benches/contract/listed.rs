//! The command line's list of all shares: how soon it begins, how long it takes, and the memory of its process.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{SHARES, load::Api};

/// How often the memory's peak is read: the last reading is a page before the end.
const LINES_A_READING: u32 = 1000;

pub(crate) struct Listed {
    /// From the start of the process to its first line.
    pub(crate) first: Duration,
    pub(crate) all: Duration,
    /// The peak of resident memory in KiB: when a tenth of the lines had been read, and at the last reading.
    pub(crate) early: u64,
    pub(crate) most: u64,
}

/// Reads `wicketgate share list` through a pipe, as a script would.
pub(crate) fn list(home: &Path, api: &Api) -> Result<Listed> {
    let begin = Instant::now();
    let mut process = Command::new(env!("CARGO_BIN_EXE_wicketgate"))
        .args(["share", "list", "--server", &format!("http://{}", api.address)])
        .arg("--token-file")
        .arg(home.join("admin.token"))
        .env("XDG_CONFIG_HOME", home.join("client"))
        .stdout(Stdio::piped())
        .spawn()?;
    let status = format!("/proc/{}/status", process.id());
    let output = process.stdout.take().context("the list has no output")?;
    let (mut lines, mut first, mut early, mut most) = (0, Duration::ZERO, 0, 0);
    for line in BufReader::new(output).lines() {
        line?;
        lines += 1;
        if lines == 1 {
            first = begin.elapsed();
        }
        if lines % LINES_A_READING == 0 {
            // None, if it has printed everything and ended.
            most = peak(&status).unwrap_or(most);
            early = if lines <= SHARES / 10 { most } else { early };
        }
    }
    ensure!(process.wait()?.success(), "`share list` has failed");
    ensure!(lines == SHARES, "`share list` has printed {lines} lines");
    Ok(Listed { first, all: begin.elapsed(), early, most })
}

fn peak(status: &str) -> Option<u64> {
    let status = fs::read_to_string(status).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}
