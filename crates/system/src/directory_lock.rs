//! A directory that one process uses at a time.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

use crate::if_exists;

/// The locked file. It stays in the directory after the lock ends, unless that is removed.
pub(crate) const LOCK_FILE: &str = "lock";
/// A start that is refused removes its file once. More would be somebody who replaces it on purpose.
const TRIES: usize = 16;

/// The lock of a directory, until it is dropped. The kernel releases it when the process ends (flock(2)).
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Locks an existing directory, without waiting.
    ///
    /// # Errors
    /// `WouldBlock`: another holder has the lock. Other kinds: the lock file cannot be opened or locked, or is a symbolic link.
    pub fn take(directory: &Path) -> io::Result<Self> {
        let path = directory.join(LOCK_FILE);
        for _ in 0..TRIES {
            let file = open(&path)?;
            file.try_lock()?;
            if is_same(&file, &path)? {
                return Ok(Self { _file: file });
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "its lock file is replaced again and again"))
    }
}

fn open(path: &Path) -> io::Result<File> {
    let no_link = OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).custom_flags(no_link).open(path)
}

/// Whether the file is still that of the path. Its last holder may have removed it before it let it go, as a start that is refused does
/// with what it has created: the lock of a file without a name keeps nobody out.
pub(crate) fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    let (held, named) = (file.metadata()?, if_exists(fs::symlink_metadata(path))?);
    Ok(named.is_some_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())))
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

    #[test]
    fn the_lock_of_a_file_that_its_holder_has_removed_keeps_others_out_of_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK_FILE);
        let opened = open(&path).unwrap();
        assert!(is_same(&opened, &path).unwrap());
        // The holder removes it and ends; this process, which has opened it before, would get that lock.
        fs::remove_file(&path).unwrap();
        assert!(!is_same(&opened, &path).unwrap());
        let other = DirectoryLock::take(dir.path()).unwrap();
        assert!(!is_same(&opened, &path).unwrap());
        drop(other);
        // Many that begin and remove it: no two have it at one time.
        let holders = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let Ok(_held) = DirectoryLock::take(dir.path()) else { continue };
                        assert_eq!(holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        fs::remove_file(&path).unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn a_lock_file_that_is_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("of-another-program");
        std::os::unix::fs::symlink(&other, dir.path().join(LOCK_FILE)).unwrap();
        DirectoryLock::take(dir.path()).unwrap_err();
        assert!(!other.exists());
    }
}
