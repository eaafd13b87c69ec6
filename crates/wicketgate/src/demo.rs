//! `wicketgate demo`: the product at work on this machine, with nothing simulated. Two customers with the same subnet
//! reach two services in a private network that lets nothing in, through IKEv2 and ESP, by the same port.
//!
//! Invariant: whatever way the demo ends, what it made is removed, by itself or by its next start; and nothing else
//! is touched. All of it stands in the ledger of its [`Lab`].

mod checks;
mod network;
mod report;
mod story;
mod targets;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use wicketgate_lab::{Lab, Place, Running, Swept, sweep};

use self::report::{Report, say};

/// Where the demo is unless it was told another place.
const DIR: &str = "/var/lib/wicketgate-demo";

/// Begins the name of every namespace that the demo makes.
const PREFIX: &str = "wgdemo-";

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave it running, and say how to use it.
    #[arg(long, conflicts_with = "down")]
    keep: bool,
    /// End a demo that was left running, and remove what it made.
    #[arg(long)]
    down: bool,
    /// Where the demo keeps its files: a directory that is absent or empty. Removed at the end.
    #[arg(long, value_name = "DIR", default_value = DIR)]
    dir: PathBuf,
}

impl Demo {
    pub(crate) async fn run(self) -> Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .map(signal)
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .context("no signals can be received")?
            .into_iter();
        // The story itself blocks: it waits for programs and sockets in other namespaces, step by step.
        let mut story = tokio::task::spawn_blocking({
            let stop = Arc::clone(&stop);
            move || self.play(&stop)
        });
        if let (Some(mut int), Some(mut term), Some(mut hup)) =
            (signals.next(), signals.next(), signals.next())
        {
            tokio::select! {
                done = &mut story => return done?,
                _ = int.recv() => {}
                _ = term.recv() => {}
                _ = hup.recv() => {}
            }
        }
        stop.store(true, Ordering::Relaxed);
        say("\ninterrupted: removing what was made");
        story.await?
    }

    fn play(mut self, stop: &Arc<AtomicBool>) -> Result<()> {
        ensure!(rustix::process::geteuid().is_root(), "run the demo as root: it makes network namespaces");
        // The commands that are printed work from anywhere.
        self.dir = std::path::absolute(&self.dir).context("the demo's directory is no path")?;
        if self.down {
            return end(&self.dir);
        }
        programs()?;
        let executable = std::env::current_exe().context("can't find this program")?;
        let agent = executable.with_file_name("wicketgate-agent");
        ensure!(agent.exists(), "{} is not there: run `make build`", agent.display());

        let mut report = Report::new();
        let place = Place::take(&self.dir).map_err(running)?;
        if place.left() {
            say("ending the demo that was left running");
        }
        let mut lab =
            Lab::at(PREFIX, place, Arc::clone(stop)).context("what an earlier demo left is in the way")?;
        let told = match story::tell(&lab, &executable, &agent, &mut report) {
            Ok(told) => told,
            Err(e) => {
                drop(lab);
                ensure!(
                    !self.dir.exists(),
                    "{} is still there: end it with {}",
                    self.dir.display(),
                    ending(&self.dir)
                );
                // What went wrong after an interrupt is the interrupt's doing.
                ensure!(!stop.load(Ordering::Relaxed), "interrupted; what was made is removed");
                return Err(e.context("the demo did not get through; what it made is removed"));
            }
        };
        let passed = report.end();
        if self.keep {
            lab.leave();
            told.how_to_use(&self.dir, &ending(&self.dir));
        } else {
            told.end(&lab, &report)?;
            drop(lab);
            ensure!(!self.dir.exists(), "{} is still there", self.dir.display());
            report.step("all removed: tunnels, processes, namespaces, files");
        }
        if passed { Ok(()) } else { bail!("a check failed") }
    }
}

/// Ends a demo that was left running.
fn end(dir: &Path) -> Result<()> {
    let place = dir.display();
    match sweep(dir).map_err(running)? {
        Some(Swept { processes, namespaces }) => say(format_args!(
            "ended the demo that was left running: {processes} processes, {namespaces} namespaces and {place} removed"
        )),
        None => say(format_args!("there is no demo in {place}")),
    }
    Ok(())
}

/// A demo that runs is its own terminal's to end: its story would go on without its networks.
fn running(error: Error) -> Error {
    match error.downcast_ref::<Running>() {
        Some(Running { pid: Some(pid), .. }) => anyhow!("a demo is running (pid {pid}): end it first"),
        Some(Running { pid: None, .. }) => anyhow!("a demo is running: end it first"),
        None => error,
    }
}

/// What ends a demo that was left in `dir`.
fn ending(dir: &Path) -> String {
    if dir == Path::new(DIR) {
        "`make demo-down` or `wicketgate demo --down`".to_owned()
    } else {
        format!("`wicketgate demo --down --dir {}`", dir.display())
    }
}

/// # Errors
/// When a program that the demo runs is not installed, with the command that installs it.
fn programs() -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default();
    // An administrator's programs are not in everybody's PATH.
    let dirs: Vec<&Path> = path.split(':').chain(["/usr/sbin", "/usr/lib/ipsec"]).map(Path::new).collect();
    let there = |program: &&&str| dirs.iter().any(|d| fs::metadata(d.join(program)).is_ok());
    let needed = [
        "ip", "nft", "nsenter", "unshare", "setpriv", "charon", "swanctl", "tcpdump", "nginx", "psql", "curl",
    ];
    let missing: Vec<&str> = needed.iter().filter(|p| !there(p)).copied().collect();
    ensure!(missing.is_empty(), "not installed: {}; run `make install`", missing.join(", "));
    ensure!(targets::postgresql().is_some(), "PostgreSQL's server is not installed; run `make install`");
    Ok(())
}
