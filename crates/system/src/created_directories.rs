//! Directories that this process has created, and takes back if nothing comes into them: a start that is refused leaves none.
//!
//! Invariant: a directory that existed before is never removed, and one that is not empty is left as it is, with all in it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Mutex, directory_lock::LOCK_FILE, private_file::private_dir};

/// See the module. An empty file of a lock is nothing.
#[derive(Debug, Default)]
pub(crate) struct CreatedDirectories {
    /// The outer ones first. Whether it was asked for, and is this process's own with all in it; or a parent, which others may use.
    all: Mutex<Vec<(PathBuf, bool)>>,
}

impl CreatedDirectories {
    /// Creates a private directory with its parents, as [`private_dir`] does.
    pub(crate) fn create(&self, path: &Path) -> io::Result<()> {
        let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
        let mut missing: Vec<_> = path.ancestors().take_while(is_missing).map(Path::to_owned).collect();
        private_dir(path)?;
        missing.reverse();
        self.all.lock().extend(missing.into_iter().map(|dir| (dir.clone(), dir == path)));
        Ok(())
    }

    /// Removes those that are still empty and that `may` names, the inner ones first.
    pub(crate) fn take_back(&self, may: impl Fn(&Path) -> bool) {
        for (dir, is_own) in self.all.lock().iter().rev().filter(|(dir, _)| may(dir)) {
            if *is_own && is_empty(dir).unwrap_or_default() {
                let _ = remove(dir);
            } else {
                // Not if anything is in it.
                let _ = fs::remove_dir(dir);
            }
        }
    }
}

/// Whether there is nothing in it but empty directories and locks.
fn is_empty(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        let (entry, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        let is_lock = || Ok::<_, io::Error>(entry.ends_with(LOCK_FILE) && fs::metadata(&entry)?.len() == 0);
        let is_nothing = (kind.is_dir() && is_empty(&entry)?) || (kind.is_file() && is_lock()?);
        if !is_nothing {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Of a directory that [is empty](is_empty). What has come into it since stays.
fn remove(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let (entry, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        if kind.is_dir() {
            remove(&entry)?;
        } else if entry.ends_with(LOCK_FILE) {
            fs::remove_file(&entry)?;
        }
    }
    fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_created_and_is_empty_is_gone_and_all_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (before, new) = (dir.path().join("before"), dir.path().join("a/b/new"));
        fs::create_dir_all(before.join("older")).unwrap();
        let created = CreatedDirectories::default();
        for path in [&before, &before.join("older"), &before.join("sub"), &new, &new.join("tunnels")] {
            created.create(path).unwrap();
        }
        for path in [before.join(LOCK_FILE), new.join(LOCK_FILE)] {
            fs::write(path, "").unwrap();
        }
        created.take_back(|_| true);
        assert!(before.join("older").exists() && before.join(LOCK_FILE).exists());
        assert!(!before.join("sub").exists() && !dir.path().join("a").exists());

        // Another process begins to use a directory beside, and has not written anything.
        let created = CreatedDirectories::default();
        created.create(&new).unwrap();
        let other = dir.path().join("a/b/other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join(LOCK_FILE), "").unwrap();
        created.take_back(|_| true);
        assert!(!new.exists() && other.join(LOCK_FILE).exists());
        fs::remove_dir_all(dir.path().join("a")).unwrap();

        let created = CreatedDirectories::default();
        created.create(&new).unwrap();
        created.create(&new.join("empty")).unwrap();
        fs::write(new.join(LOCK_FILE), "").unwrap();
        fs::write(new.join("key"), "").unwrap();
        created.take_back(|dir| !dir.ends_with("empty"));
        assert!(new.join("key").exists() && new.join(LOCK_FILE).exists() && new.join("empty").exists());
        created.take_back(|_| true);
        assert!(new.join("key").exists() && new.join(LOCK_FILE).exists() && !new.join("empty").exists());
    }
}
