//! A process that a lab started, its output in a file.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::{lab::Lab, ledger::send, program::last_lines};

/// Stays running when dropped; its lab ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in a process group of its own (an interrupt at the terminal is for the program that started it, which
    /// ends it in order), its output appended to `log`.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(lab: &Lab, name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let out = File::options()
            .append(true)
            .create(true)
            .open(log)
            .with_context(|| format!("can't write {}", log.display()))?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("can't start {name}"))?;
        lab.ledger().process(child.id())?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its output so far.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of its output.
    pub fn tail(&self) -> String {
        format!("--- {} ({})\n{}", self.name, self.log.display(), last_lines(&self.said()))
    }

    /// # Errors
    /// It has ended; with the end of its output.
    pub fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}\n{}", self.name, self.tail()),
        }
    }

    /// Polls `look` like [`Lab::until`], but stops at once if the process ends.
    ///
    /// # Errors
    /// Those of [`Lab::until`], or the process has ended; with the end of its output.
    pub fn until<T>(
        &mut self,
        lab: &Lab,
        what: &str,
        bound: Duration,
        look: impl Fn(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let found = lab.until(what, bound, || match self.alive() {
            Ok(()) => Ok(look(self)?.map(Ok)),
            Err(ended) => Ok(Some(Err(ended))),
        });
        found.map_err(|e| e.context(self.tail()))?
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// When it runs longer than `bound`.
    pub fn wait(&mut self, bound: Duration) -> Result<ExitStatus> {
        let end = Instant::now() + bound;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("{} has not ended within {} s\n{}", self.name, bound.as_secs_f32(), self.tail());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Errors
    /// When it has not ended within `bound`.
    pub fn stop(&mut self, bound: Duration) -> Result<ExitStatus> {
        send(self.pid(), Signal::TERM);
        self.wait(bound)
    }

    /// Ends it at once (SIGKILL).
    ///
    /// # Errors
    /// When it can't be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}
