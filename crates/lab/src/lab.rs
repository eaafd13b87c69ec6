//! A lab: a directory, a prefix for the names of namespaces, and a ledger.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    directory::LabDirectory,
    ledger::{Entry, Ledger, namespace_path},
    namespace::{End, Namespace, batch},
};

/// The pause between two polls: short, since tests measure times with it.
const LOOK: Duration = Duration::from_millis(20);

/// Removes everything that it created when dropped, unless [`Lab::leave`] was called.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    place: LabDirectory,
    ledger: Ledger,
    stop: Arc<AtomicBool>,
    leave: bool,
}

/// The lab was stopped while it was waiting.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("interrupted")]
pub struct Stopped;

impl Lab {
    /// A lab in `dir`, which must be absent, empty, or an earlier lab's. Else as [`Lab::at`].
    ///
    /// # Errors
    /// As [`LabDirectory::take`] and [`Lab::at`].
    pub fn new(prefix: &str, dir: &Path, stop: Arc<AtomicBool>) -> Result<Self> {
        Self::at(prefix, LabDirectory::take(dir)?, stop)
    }

    /// A lab in `place`. First removes what an earlier lab left there. Names of namespaces begin with `prefix`. `stop` ends
    /// every wait.
    ///
    /// # Errors
    /// The remains of an earlier lab cannot be removed.
    pub fn at(prefix: &str, place: LabDirectory, stop: Arc<AtomicBool>) -> Result<Self> {
        place.clear()?;
        let ledger = Ledger::create(place.dir())?;
        Ok(Self { prefix: prefix.to_owned(), place, ledger, stop, leave: false })
    }

    /// A directory of the lab, created if it does not exist.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.path(name);
        fs::create_dir_all(&dir).with_context(|| format!("can't make {}", dir.display()))?;
        Ok(dir)
    }

    /// A path in the lab's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.dir().join(name)
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Makes a network namespace, its loopback up and its reverse-path filter off.
    ///
    /// # Errors
    /// When `ip netns add` fails: not root, or the name is taken.
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        let name = format!("{}{name}", self.prefix);
        // A namespace of another program must not get into the ledger.
        ensure!(
            !namespace_path(&name).exists(),
            "the namespace {name} exists already and belongs to another program"
        );
        self.ledger.add(&Entry::Namespace(name.clone()))?;
        Namespace::make(&name)
    }

    /// Makes a control group (cgroups(7)) in a group that exists.
    ///
    /// # Errors
    /// When it can't be made: not root, or it exists already and belongs to another program.
    pub fn control_group(&self, parent: &Path, name: &str) -> Result<PathBuf> {
        let group = parent.join(format!("{}{name}", self.prefix));
        ensure!(!group.exists(), "the control group {} belongs to another program", group.display());
        self.ledger.add(&Entry::ControlGroup(group.clone()))?;
        fs::create_dir(&group).with_context(|| format!("can't make {}", group.display()))?;
        Ok(group)
    }

    /// Joins the host itself to a namespace, by an interface of the host called `name`.
    ///
    /// # Errors
    /// When `ip` refuses: the name is taken, for one.
    pub fn join_host(&self, name: &str, address: &str, far: End<'_>) -> Result<()> {
        let taken = Path::new("/sys/class/net").join(name).exists();
        ensure!(!taken, "the interface {name} exists already and belongs to another program");
        self.ledger.add(&Entry::Link(name.to_owned()))?;
        let End(namespace, interface, far_address) = far;
        batch(
            &[],
            &format!(
                "link add {name} type veth peer name {interface} netns {}\n\
                 addr add {address} dev {name}\nlink set dev {name} up",
                namespace.name()
            ),
        )?;
        namespace.ip(&format!("addr add {far_address} dev {interface}\nlink set dev {interface} up"))
    }

    /// Polls `look` until it returns something, for `bound` at most.
    ///
    /// # Errors
    /// The last error of `look`, after `bound`; [`Stopped`] if the lab was stopped. Errors of `look` before `bound` are
    /// ignored.
    pub fn until<T>(
        &self,
        what: &str,
        bound: Duration,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let end = Instant::now() + bound;
        loop {
            self.go_on()?;
            match look() {
                Ok(Some(found)) => return Ok(found),
                Ok(None) | Err(_) if Instant::now() < end => thread::sleep(LOOK),
                Ok(None) => bail!("not within {} s: {what}", bound.as_secs_f32()),
                Err(e) => return Err(e.context(format!("not within {} s: {what}", bound.as_secs_f32()))),
            }
        }
    }

    /// # Errors
    /// [`Stopped`] if the lab was stopped.
    pub fn go_on(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { bail!(Stopped) } else { Ok(()) }
    }

    /// Removes everything now, and reports what could not be removed.
    ///
    /// # Errors
    /// As [`sweep`](crate::sweep).
    pub fn remove(mut self) -> Result<()> {
        self.leave = true;
        self.place.remove().map(drop)
    }

    /// Leaves everything running when the lab is dropped. [`sweep`](crate::sweep) removes it later.
    pub fn leave(&mut self) {
        self.leave = true;
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The ledger stays if something cannot be removed: the next lab in this directory tries again.
        if !self.leave {
            let _ = self.place.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_namespace_of_another_program_is_neither_used_nor_removed() {
        assert!(rustix::process::geteuid().is_root(), "makes a network namespace: run it as root");
        let dir = std::env::temp_dir().join(format!("wicketgate-taken-{}", std::process::id()));
        let prefix = format!("taken-{}-", std::process::id());
        let theirs = format!("{prefix}a");
        let ip =
            |verb| assert!(Command::new("ip").args(["netns", verb, &theirs]).status().unwrap().success());
        ip("add");
        let lab = Lab::new(&prefix, &dir, Arc::default()).unwrap();
        let refused = lab.namespace("a").is_err();
        let removed = lab.remove();
        // Fails if the namespace is gone.
        ip("del");
        assert!(refused);
        removed.unwrap();
    }
}
