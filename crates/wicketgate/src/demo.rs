//! `wicketgate demo`: the product at work on this machine, with nothing simulated. Two customers with the same subnet
//! reach two services in a private network that lets nothing in, through IKEv2 and ESP, by the same port.
//!
//! Invariant: however the demo ends, everything that it created is removed, by itself or by its next start, and nothing
//! else is. All of it is listed in the ledger of its [`Lab`].

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

use anyhow::{Context, Error, Result, bail, ensure};
use clap::Args;
use wicketgate_lab::{Lab, LabDirectory, Running, Swept, postgres, sweep};
use wicketgate_system::program::StopSignals;

use self::report::{Report, say};

/// The demo's default directory.
const DIR: &str = "/var/lib/wicketgate-demo";

/// The file that marks a demo that was left running.
const KEPT: &str = "kept";

/// Prefix of the names of all namespaces of the demo.
const PREFIX: &str = "wgdemo-";

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave the demo running and print how to use it. It runs until `--down`.
    #[arg(long, conflicts_with = "down")]
    keep: bool,
    /// End a demo that was left running and remove everything it created.
    #[arg(long)]
    down: bool,
    /// Directory for the demo's files; must not exist or must be empty. Removed at the end.
    #[arg(long, value_name = "DIR", default_value = DIR)]
    dir: PathBuf,
}

impl Demo {
    pub(crate) async fn run(self) -> Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut signals = StopSignals::new(false)?;
        // The demo itself blocks: it waits for programs and sockets in other namespaces, step by step.
        let mut story = tokio::task::spawn_blocking({
            let stop = Arc::clone(&stop);
            move || self.play(&stop)
        });
        tokio::select! {
            done = &mut story => return done?,
            _ = signals.next() => {}
        }
        stop.store(true, Ordering::Relaxed);
        say("\ninterrupted: removing everything");
        story.await?
    }

    fn play(mut self, stop: &Arc<AtomicBool>) -> Result<()> {
        ensure!(rustix::process::geteuid().is_root(), "run the demo as root: it creates network namespaces");
        // The printed commands work from any directory.
        self.dir = std::path::absolute(&self.dir).context("the demo's directory is not a valid path")?;
        if self.down {
            return end(&self.dir);
        }
        programs()?;
        let executable = std::env::current_exe().context("cannot find this program's file")?;
        let agent = executable.with_file_name("wicketgate-agent");
        ensure!(agent.exists(), "{} does not exist: run `make build`", agent.display());

        let mut report = Report::new();
        let place = LabDirectory::take(&self.dir).map_err(running)?;
        ensure!(
            !self.dir.join(KEPT).exists(),
            "a demo was left running, with everything that was created in it: end it with {}",
            ending(&self.dir)
        );
        if place.left() {
            say("ending an earlier demo");
        }
        let mut lab = Lab::at(PREFIX, place, Arc::clone(stop)).context("cannot remove an earlier demo")?;
        let demo = match story::run(&lab, &executable, &agent, &mut report) {
            Ok(demo) => demo,
            Err(e) => {
                drop(lab);
                ensure!(
                    !self.dir.exists(),
                    "{} still exists: remove it with {}",
                    self.dir.display(),
                    ending(&self.dir)
                );
                // An error after an interrupt is a consequence of the interrupt.
                ensure!(!stop.load(Ordering::Relaxed), "interrupted; everything is removed");
                return Err(e.context("the demo failed; everything it created is removed"));
            }
        };
        let passed = report.end();
        if self.keep {
            fs::write(self.dir.join(KEPT), "").context("cannot write to the demo's directory")?;
            lab.leave();
            demo.how_to_use(&self.dir, &ending(&self.dir));
        } else {
            demo.end(&lab, &report)?;
            drop(lab);
            ensure!(!self.dir.exists(), "{} still exists", self.dir.display());
            report.step("removed all tunnels, processes, namespaces and files");
        }
        if passed { Ok(()) } else { bail!("a check failed") }
    }
}

/// Ends a demo that was left running.
fn end(dir: &Path) -> Result<()> {
    let place = dir.display();
    match sweep(dir).map_err(running)? {
        Some(Swept { processes, namespaces }) => say(format_args!(
            "ended the running demo: removed {processes} processes, {namespaces} namespaces and {place}"
        )),
        None if dir == Path::new(DIR) => say(format_args!("no demo in {place}")),
        None => bail!("no demo in {place}: set --dir to the directory of one"),
    }
    Ok(())
}

/// A demo that is in progress must be ended in its own terminal: it would continue without its networks.
fn running(error: Error) -> Error {
    if error.is::<Running>() { error.context("a demo is running: end it first") } else { error }
}

/// The command that ends a demo in `dir`.
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
    // Administrators' programs are not in every user's PATH.
    let dirs: Vec<&Path> = path.split(':').chain(["/usr/sbin", "/usr/lib/ipsec"]).map(Path::new).collect();
    let there = |program: &&&str| dirs.iter().any(|d| fs::metadata(d.join(program)).is_ok());
    let needed = [
        "ip", "nft", "nsenter", "unshare", "setpriv", "charon", "swanctl", "tcpdump", "nginx", "psql", "curl",
    ];
    let missing: Vec<&str> = needed.iter().filter(|p| !there(p)).copied().collect();
    ensure!(missing.is_empty(), "not installed: {}; run `make install`", missing.join(", "));
    ensure!(postgres::installed().is_some(), "PostgreSQL's server is not installed; run `make install`");
    Ok(())
}
