//! The record of what a lab makes outside its directory, written before it is made; and the removal of exactly that.
//!
//! A process is known by its id and its start time, which `exec` keeps and no other process shares: a recycled id
//! is never mistaken for it.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::program::run;

const NAME: &str = "ledger";

/// For a process to end after SIGTERM, before SIGKILL: the product drains what it serves.
const GRACE: Duration = Duration::from_secs(5);

/// For the kernel to reap a killed process.
const REAP: Duration = Duration::from_secs(5);

/// For `wicketgate down` to remove a crowd of tunnels.
const DOWN: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Ledger(File);

impl Ledger {
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        let path = dir.join(NAME);
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        Ok(Self(file.with_context(|| format!("can't make {}", path.display()))?))
    }

    pub(crate) fn namespace(&self, name: &str) -> Result<()> {
        self.line(&format!("namespace\t{name}"))
    }

    /// An interface of the host's own.
    pub(crate) fn link(&self, name: &str) -> Result<()> {
        self.line(&format!("link\t{name}"))
    }

    /// A process that was just started. (Between its start and this line, its namespace's entry covers it.)
    pub(crate) fn process(&self, pid: u32) -> Result<()> {
        match started(pid) {
            Some(ticks) => self.line(&format!("process\t{pid}\t{ticks}")),
            None => Ok(()),
        }
    }

    /// A gateway that is about to start: what it leaves behind, `executable down` removes.
    pub(crate) fn gateway(&self, executable: &Path, namespace: &str, data: &Path) -> Result<()> {
        self.line(&format!("gateway\t{}\t{namespace}\t{}", executable.display(), data.display()))
    }

    fn line(&self, line: &str) -> Result<()> {
        // One write: lines of several threads don't mix.
        (&self.0).write_all(format!("{line}\n").as_bytes()).context("can't write the ledger")
    }
}

/// What was found of a lab and was ended or removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Those that the lab started itself and that were still running.
    pub processes: usize,
    pub namespaces: usize,
}

/// Ends and removes everything that the ledger in `dir` names.
///
/// # Errors
/// When something can't be removed; the rest is removed all the same.
pub(crate) fn clear(dir: &Path) -> Result<Swept> {
    let ledger = fs::read_to_string(dir.join(NAME)).unwrap_or_default();
    let mut processes = Vec::new();
    let mut namespaces = BTreeSet::new();
    let mut links = Vec::new();
    let mut gateways = BTreeSet::new();
    for line in ledger.lines() {
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["process", pid, ticks] => {
                if let (Ok(pid), Ok(ticks)) = (pid.parse(), ticks.parse()) {
                    processes.push((pid, ticks));
                }
            }
            ["namespace", name] => {
                namespaces.insert(name);
            }
            ["link", name] => links.push(name),
            ["gateway", executable, namespace, data] => {
                gateways.insert((executable, namespace, data));
            }
            _ => {}
        }
    }
    // The last started goes first: what serves others was started before them.
    processes.reverse();
    let swept = Swept {
        processes: processes.iter().filter(|(pid, ticks)| started(*pid) == Some(*ticks)).count(),
        namespaces: namespaces.iter().filter(|name| namespace_path(name).exists()).count(),
    };
    end(&processes);
    let mut left = Vec::new();
    for (executable, namespace, data) in gateways {
        if let Err(e) = down(executable, namespace, data) {
            left.push(format!("what {executable} made: {e:#}"));
        }
    }
    for name in links {
        // Its other end may have taken it along already; it must not be there when a new one is made.
        let _ = Command::new("ip").args(["link", "del", "dev", name]).stderr(Stdio::null()).status();
    }
    for name in &namespaces {
        if let Err(e) = remove_namespace(name) {
            left.push(format!("{name}: {e:#}"));
        }
    }
    if !left.is_empty() {
        bail!("could not remove {}", left.join("; "));
    }
    Ok(swept)
}

/// When a process started, in clock ticks since boot, or `None` if it is gone or a zombie (proc_pid_stat(5)).
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold spaces and parentheses.
    let mut rest = stat.rsplit_once(") ")?.1.split(' ');
    let state = rest.next()?;
    (state != "Z" && state != "X").then(|| rest.nth(18)?.parse().ok()).flatten()
}

fn end(processes: &[(u32, u64)]) {
    let alive = || processes.iter().filter(|(pid, ticks)| started(*pid) == Some(*ticks));
    for (signal, bound) in [(Signal::TERM, GRACE), (Signal::KILL, REAP)] {
        for (pid, _) in alive() {
            send(*pid, signal);
        }
        let end = Instant::now() + bound;
        while alive().next().is_some() && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // A process that has just ended by itself is as good as one that was ended.
        let _ = kill_process(pid, signal);
    }
}

/// Removes a namespace, and first ends every process in it: no other program has a reason to be there.
fn remove_namespace(name: &str) -> Result<()> {
    let path = namespace_path(name);
    if !path.exists() {
        return Ok(());
    }
    let end = Instant::now() + REAP;
    loop {
        let pids = Command::new("ip").args(["netns", "pids", name]).stderr(Stdio::null()).output()?;
        let pids = String::from_utf8_lossy(&pids.stdout);
        let pids: Vec<u32> = pids.lines().filter_map(|l| l.trim().parse().ok()).collect();
        // A thread of our own that has entered the namespace makes us one of them.
        let pids: Vec<u32> =
            pids.into_iter().filter(|p| *p != std::process::id() && started(*p).is_some()).collect();
        if pids.is_empty() || Instant::now() > end {
            break;
        }
        for pid in pids {
            send(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(10));
    }
    let removed = run(Command::new("ip").args(["netns", "del", name]));
    removed.map(drop).or_else(|e| if path.exists() { Err(e) } else { Ok(()) })
}

pub(crate) fn namespace_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Has the product remove what a gateway left behind. Its firewall rules went with the namespace that it ran in.
fn down(executable: &str, namespace: &str, data: &str) -> Result<()> {
    if !Path::new(data).exists() {
        return Ok(());
    }
    let mut command = Command::new("timeout");
    command.arg(DOWN.as_secs().to_string());
    let path = namespace_path(namespace);
    if path.exists() {
        command.arg("nsenter").arg(format!("--net={}", path.display()));
    } else {
        command.args(["unshare", "--net"]);
    }
    run(command.args(["--", executable, "down", "--data-dir", data])).map(drop)
}
