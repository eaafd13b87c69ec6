//! The data directory: private, and used by one process at a time.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

/// Held until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens the directory, and makes it if it is not there yet.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| {
            format!(
                "cannot make the data directory {shown}: choose another with --data-dir, or run as its owner"
            )
        })?;
        let path =
            fs::canonicalize(path).with_context(|| format!("cannot use the data directory {shown}"))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .with_context(|| {
                format!("cannot write to the data directory {shown}: choose another with --data-dir, or run as its owner")
            })?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(Errno::WOULDBLOCK) => {
                bail!(
                    "another wicketgate is using the data directory {shown}: stop it first, or choose another with --data-dir"
                )
            }
            Err(error) => {
                Err(io::Error::from(error)).with_context(|| format!("cannot lock the data directory {shown}"))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A private directory in it.
    pub(crate) fn subdirectory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }
}
