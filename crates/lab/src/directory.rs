//! The directory of a lab: marked as one, and held by one process at a time.
//!
//! Invariant: only a directory with a mark is cleared, and the mark is removed last. Only an absent or empty directory is
//! marked. The mark is also the lock: while it is locked, its holder is running.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::{fs::OFlags, process::geteuid};
use wicketgate_system::if_exists;

use crate::ledger::{self, Swept};

const MARK: &str = ".wicketgate-lab";

/// The text of a mark, followed by the process id of its holder.
const TEXT: &str = "Wicketgate made this directory, and removes it with everything in it. Held by process ";

/// Attempts, if other processes create and remove the directory at the same time.
const TRIES: usize = 10;

/// A lab's directory, held until this is dropped. It stays where it is.
#[derive(Debug)]
pub struct LabDirectory {
    dir: PathBuf,
    mark: File,
    left: bool,
}

/// Another process holds the directory.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{} is in use by another process{}", .dir.display(), .pid.map_or(String::new(), |pid| format!(": {pid}")))]
pub struct Running {
    pub dir: PathBuf,
    /// `None` if it has not written its process id yet.
    pub pid: Option<u32>,
}

impl LabDirectory {
    /// Holds `dir`, made if it is absent. Its parent must exist, and only this user may write to it.
    ///
    /// # Errors
    /// [`Running`] if another process holds it. Also if it contains other files or cannot be created.
    pub fn take(dir: &Path) -> Result<Self> {
        for _ in 0..TRIES {
            if let Some(place) = Self::find(dir)? {
                return Ok(place);
            }
            let dir = plain(dir)?;
            let made = DirBuilder::new().mode(0o755).create(&dir).err();
            let mark = OpenOptions::new().write(true).create_new(true).mode(0o644).open(dir.join(MARK)).err();
            // Another process may create and remove both at the same time. The next attempt holds what is there.
            let made = made.filter(|e| e.kind() != ErrorKind::AlreadyExists);
            let mark = mark.filter(|e| !matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound));
            if let Some(error) = made.or(mark) {
                return Err(error).with_context(|| format!("can't make {}", dir.display()));
            }
        }
        bail!("{} is created and removed by another process at the same time", dir.display())
    }

    /// Holds `dir` if it is a lab's; `None` if it is absent or empty.
    ///
    /// # Errors
    /// As [`LabDirectory::take`].
    pub(crate) fn find(dir: &Path) -> Result<Option<Self>> {
        let dir = plain(dir)?;
        let failed = || format!("can't look at {}", dir.display());
        let Some(meta) = if_exists(fs::symlink_metadata(&dir)).with_context(failed)? else { return Ok(None) };
        ensure!(meta.is_dir(), "{} is not a directory and was left alone", dir.display());
        // The ledger in it names processes to end and programs to run, so other users must not be able to write it.
        ensure!(
            meta.uid() == geteuid().as_raw() && meta.mode() & 0o022 == 0,
            "{} can be written to by other users and was left alone",
            dir.display()
        );
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mark = OpenOptions::new().read(true).write(true).custom_flags(flags).open(dir.join(MARK));
        if let Some(mark) = if_exists(mark).with_context(failed)? {
            return Self::hold(&dir, mark);
        }
        let mut entries = if_exists(fs::read_dir(&dir)).with_context(failed)?.into_iter().flatten();
        ensure!(
            entries.next().is_none(),
            "{} contains other files and was left alone: name a directory that does not exist or is empty",
            dir.display()
        );
        Ok(None)
    }

    /// `None` if the mark was removed before it was locked.
    fn hold(dir: &Path, mut mark: File) -> Result<Option<Self>> {
        match mark.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                mark.read_to_string(&mut text)?;
                let pid = text.strip_prefix(TEXT).and_then(|pid| pid.trim().parse().ok());
                bail!(Running { dir: dir.to_owned(), pid });
            }
            Err(TryLockError::Error(e)) => {
                return Err(e).with_context(|| format!("can't lock {}", dir.display()));
            }
        }
        let locked = mark.metadata()?;
        if !fs::symlink_metadata(dir.join(MARK)).is_ok_and(|m| m.ino() == locked.ino()) {
            return Ok(None);
        }
        mark.set_len(0)?;
        mark.write_all(format!("{TEXT}{}\n", std::process::id()).as_bytes())?;
        Ok(Some(Self { dir: dir.to_owned(), mark, left: locked.len() > 0 }))
    }

    /// Whether an earlier lab left something here.
    pub fn left(&self) -> bool {
        self.left
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends and removes all that the ledger names and everything in the directory but the mark.
    pub(crate) fn clear(&self) -> Result<Swept> {
        let swept = ledger::clear(&self.dir)?;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_name() == MARK {
                continue;
            }
            let path = entry.path();
            let directory = entry.file_type()?.is_dir();
            let gone = if directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            gone.with_context(|| format!("can't remove {}", path.display()))?;
        }
        Ok(swept)
    }

    /// As [`LabDirectory::clear`], and removes the directory.
    pub(crate) fn remove(&self) -> Result<Swept> {
        let swept = self.clear()?;
        let gone = fs::remove_file(self.dir.join(MARK)).and_then(|()| fs::remove_dir(&self.dir));
        gone.with_context(|| format!("can't remove {}", self.dir.display()))?;
        Ok(swept)
    }
}

impl Drop for LabDirectory {
    fn drop(&mut self) {
        // A child between fork and exec shares the lock: closing the file alone would leave it locked for a moment.
        let _ = self.mark.unlock();
    }
}

/// Absolute, and without the slash at its end that would make a symbolic link look like a directory.
fn plain(dir: &Path) -> Result<PathBuf> {
    let dir = std::path::absolute(dir).with_context(|| format!("{} is not a valid path", dir.display()))?;
    Ok(dir.components().collect())
}

/// Ends and removes everything that a lab left in `dir`, and `dir` itself; `None` when there is nothing.
///
/// # Errors
/// [`Running`] if the lab's process is still running. Also if `dir` is not a lab's, or something cannot be removed;
/// everything else is removed nevertheless.
pub fn sweep(dir: &Path) -> Result<Option<Swept>> {
    LabDirectory::find(dir)?.map(|place| place.remove()).transpose()
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt as _, symlink},
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
    };

    use super::*;
    use crate::Lab;

    /// A temporary directory of one test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name =
                format!("wicketgate-place-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let dir = std::env::temp_dir().join(name);
            DirBuilder::new().mode(0o755).create(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_directory_with_other_files_is_left_alone() {
        let scratch = Scratch::new();
        let precious = scratch.0.join("precious");
        fs::write(&precious, "mine").unwrap();
        // A ledger alone does not identify a lab.
        fs::write(scratch.0.join("ledger"), "").unwrap();
        assert!(sweep(&scratch.0).is_err());
        assert!(Lab::new("place-", &scratch.0, Arc::default()).is_err());
        assert_eq!(fs::read_to_string(precious).unwrap(), "mine");
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 2, "nothing was added");
    }

    #[test]
    fn an_absent_or_empty_directory_is_used_and_removed_with_the_lab() {
        let scratch = Scratch::new();
        for dir in [scratch.0.join("absent"), scratch.0.clone()] {
            assert!(sweep(&dir).unwrap().is_none());
            let lab = Lab::new("place-", &dir, Arc::default()).unwrap();
            fs::write(lab.dir("a/b").unwrap().join("c"), "d").unwrap();
            lab.remove().unwrap();
            assert!(!dir.exists());
        }
    }

    #[test]
    fn remains_are_removed_by_the_next_lab_or_a_sweep() {
        let scratch = Scratch::new();
        let dir = scratch.0.join("lab");
        let leave = || {
            let mut lab = Lab::new("place-", &dir, Arc::default()).unwrap();
            lab.dir("old").unwrap();
            lab.leave();
        };
        leave();
        let place = LabDirectory::take(&dir).unwrap();
        assert!(place.left());
        let lab = Lab::at("place-", place, Arc::default()).unwrap();
        assert!(!dir.join("old").exists());
        drop(lab);
        assert!(!dir.exists());
        leave();
        assert!(sweep(&dir).unwrap().is_some());
        assert!(!dir.exists());
    }

    #[test]
    fn a_running_lab_is_left_alone() {
        let scratch = Scratch::new();
        let dir = scratch.0.join("lab");
        let lab = Lab::new("place-", &dir, Arc::default()).unwrap();
        let thing = lab.dir("thing").unwrap();
        for refused in [sweep(&dir).unwrap_err(), Lab::new("place-", &dir, Arc::default()).unwrap_err()] {
            let running = refused.downcast_ref::<Running>().unwrap();
            assert_eq!(running.pid, Some(std::process::id()));
        }
        assert!(thing.exists());
    }

    #[test]
    fn a_symbolic_link_and_a_directory_that_others_can_write_to_are_left_alone() {
        let scratch = Scratch::new();
        let dir = scratch.0.join("lab");
        Lab::new("place-", &dir, Arc::default()).unwrap().leave();
        let link = scratch.0.join("link");
        symlink(&dir, &link).unwrap();
        assert!(sweep(&link).is_err());
        assert!(sweep(&link.join("")).is_err(), "a symbolic link with a trailing slash was followed");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(sweep(&dir).is_err());
        assert!(dir.join(MARK).exists() && link.exists());
    }
}
