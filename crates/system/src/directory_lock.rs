//! A directory that one process uses at a time.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// The locked file. It stays in the directory after the lock ends.
pub(crate) const LOCK_FILE: &str = "lock";

/// The lock of a directory, until it is dropped. The kernel releases it when the process ends (flock(2)).
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Locks an existing directory, without waiting.
    ///
    /// # Errors
    /// `WouldBlock`: another holder has the lock. Other kinds: the lock file cannot be opened or locked.
    pub fn take(directory: &Path) -> io::Result<Self> {
        let path = directory.join(LOCK_FILE);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        file.try_lock()?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirectoryLock::take(dir.path()).unwrap();
        let second = DirectoryLock::take(dir.path()).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
        drop(held);
        DirectoryLock::take(dir.path()).unwrap();
    }
}
