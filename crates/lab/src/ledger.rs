//! The ledger of a lab: what it creates outside its directory, written before it is created. Only ledger entries are
//! removed.
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

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

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

/// A line of the ledger. They are removed in this order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Entry {
    Process(Started),
    /// A gateway that is about to start: `executable down` removes what it leaves behind.
    Gateway {
        executable: PathBuf,
        namespace: String,
        data: PathBuf,
    },
    /// A gateway in a process of its own: what it leaves running, as [`Entry::Gateway`].
    GatewayRole {
        executable: PathBuf,
        namespace: String,
        state: PathBuf,
    },
    /// An interface of the host's own.
    Link(String),
    Namespace(String),
    /// After the processes and the namespaces: a group with processes stays.
    ControlGroup(PathBuf),
}

/// A process and when it started, in clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Started {
    pid: u32,
    ticks: u64,
}

impl Ledger {
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        let path = dir.join(NAME);
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        Ok(Self(file.with_context(|| format!("can't make {}", path.display()))?))
    }

    pub(crate) fn add(&self, entry: &Entry) -> Result<()> {
        let line = serde_json::to_string(entry)?;
        // One write: lines of several threads don't mix.
        (&self.0).write_all(format!("{line}\n").as_bytes()).context("can't write the ledger")
    }

    /// A process that was just started. (Between its start and this line, its namespace's entry covers it.)
    pub(crate) fn process(&self, pid: u32) -> Result<()> {
        Started::of(pid).map_or(Ok(()), |process| self.add(&Entry::Process(process)))
    }
}

/// How much of a lab was found and removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Processes that the lab had started and that were still running.
    pub processes: usize,
    pub namespaces: usize,
}

/// The entries of a ledger. A last line without its end was not written completely.
fn read(ledger: &str) -> serde_json::Result<Vec<Entry>> {
    let whole = ledger.rfind('\n').map_or("", |end| &ledger[..end]);
    whole.lines().map(serde_json::from_str).collect()
}

/// Ends and removes everything that the ledger in `dir` names.
///
/// # Errors
/// The ledger cannot be read, and nothing was removed; or something cannot be removed, and everything else was.
pub(crate) fn clear(dir: &Path) -> Result<Swept> {
    let path = dir.join(NAME);
    let ledger = fs::read_to_string(&path).unwrap_or_default();
    let entries = read(&ledger).with_context(|| {
        format!("{} is of another version: remove the lab with that version", path.display())
    })?;
    // In reverse order of their start: a process depends only on earlier ones.
    let processes = entries.iter().rev().filter_map(|entry| match entry {
        Entry::Process(process) => Some(*process),
        _ => None,
    });
    let processes: Vec<_> = processes.filter(Started::is_running).collect();
    end(&processes);
    let mut swept = Swept { processes: processes.len(), namespaces: 0 };
    let mut left = Vec::new();
    for entry in entries.iter().collect::<BTreeSet<_>>() {
        let removed = match entry {
            Entry::Process(_) => Ok(()),
            Entry::Gateway { executable, namespace, data } => {
                down(executable, namespace, ("--data-dir", data))
                    .with_context(|| format!("what {} made", executable.display()))
            }
            Entry::GatewayRole { executable, namespace, state } => {
                down(executable, namespace, ("--state-dir", state))
                    .with_context(|| format!("what {} made", executable.display()))
            }
            Entry::Link(name) => {
                // Fails if it was removed together with its other end.
                let _ = Command::new("ip").args(["link", "del", "dev", name]).stderr(Stdio::null()).status();
                Ok(())
            }
            Entry::Namespace(name) => {
                swept.namespaces += usize::from(namespace_path(name).exists());
                remove_namespace(name).with_context(|| name.clone())
            }
            Entry::ControlGroup(group) => {
                // Fails if it was removed before.
                let _ = fs::remove_dir(group);
                Ok(())
            }
        };
        left.extend(removed.err().map(|e| format!("{e:#}")));
    }
    ensure!(left.is_empty(), "could not remove {}", left.join("; "));
    Ok(swept)
}

impl Started {
    /// `None` if the process is gone or a zombie (proc_pid_stat(5)).
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may itself hold spaces and parentheses.
        let mut rest = stat.rsplit_once(") ")?.1.split(' ');
        let state = rest.next()?;
        (state != "Z" && state != "X")
            .then(|| Some(Self { pid, ticks: rest.nth(18)?.parse().ok()? }))
            .flatten()
    }

    fn is_running(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }
}

fn end(processes: &[Started]) {
    let alive = || processes.iter().filter(|process| process.is_running());
    for (signal, bound) in [(Signal::TERM, GRACE), (Signal::KILL, REAP)] {
        for process in alive() {
            send(process.pid, signal);
        }
        let end = Instant::now() + bound;
        while alive().next().is_some() && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Fails if the process has ended by itself.
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
        let pids = pids.lines().filter_map(|l| l.trim().parse().ok());
        // Includes this process if one of its threads has entered the namespace.
        let pids: Vec<u32> = pids.filter(|p| *p != std::process::id() && Started::of(*p).is_some()).collect();
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

/// Runs `wicketgate down` for a gateway. Its firewall rules are removed with the namespace that it ran in.
fn down(executable: &Path, namespace: &str, (flag, directory): (&str, &Path)) -> Result<()> {
    if !directory.exists() {
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
    command.arg("--").arg(executable).args(["down", flag]).arg(directory);
    run(&mut command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_skipped_and_any_other_unknown_line_is_an_error() {
        let entry = serde_json::to_string(&Entry::Namespace("a".to_owned())).unwrap();
        assert_eq!(read("").unwrap(), []);
        assert_eq!(read(&format!("{entry}\n")).unwrap(), [Entry::Namespace("a".to_owned())]);
        assert_eq!(read(&format!("{entry}\n{{\"pro")).unwrap().len(), 1);
        assert_eq!(read("{\"pro").unwrap(), []);
        assert!(read(&format!("process\t12\t34\n{entry}\n")).is_err());
    }
}
