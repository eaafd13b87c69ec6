//! The data directory: private, and used by one process at a time.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, ensure};
use wicketgate_system::{
    directory_lock::{DirectoryLock, LOCK_FILE},
    private_file::private_dir,
};

/// Held until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: DirectoryLock,
}

impl DataDir {
    /// Opens the directory, which is created if it does not exist. An empty one is taken over and made private; one with
    /// other files is refused.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let cannot = |what: &str| {
            format!(
                "cannot {what} the data directory {shown}: choose another with --data-dir, or run as its owner"
            )
        };
        if path.exists() {
            let is_ours = path.join(LOCK_FILE).try_exists().with_context(|| cannot("read"))?
                || fs::read_dir(path).with_context(|| cannot("read"))?.next().is_none();
            // Before anything in it is changed.
            ensure!(is_ours, "the directory {shown} has other files in it: choose another with --data-dir");
        }
        private_dir(path).with_context(|| cannot("create or change"))?;
        let path = fs::canonicalize(path).with_context(|| cannot("read"))?;
        let lock = DirectoryLock::take(&path).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => anyhow!(
                "another wicketgate is using the data directory {shown}: stop it first, or choose another with --data-dir"
            ),
            _ => anyhow!(e).context(cannot("write to")),
        })?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A private directory in it.
    pub(crate) fn subdirectory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        private_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_directory_is_made_private_and_used_by_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let held = DataDir::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        let second = DataDir::open(&path).unwrap_err().to_string();
        assert!(second.contains("another wicketgate"), "{second}");
        drop(held);
        fs::write(path.join("wicketgate.db"), "").unwrap();
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_directory_with_other_files_is_refused_and_left_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter"), "").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let refused = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("has other files in it"), "{refused}");
        assert_eq!(mode(dir.path()), 0o755);
    }
}
