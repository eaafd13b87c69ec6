//! Libreswan for tests: another maker's IKE daemon.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::program::run;

/// The root of Debian's unpacked package, which cannot be installed beside strongSwan's. `script` unpacks it, unless it
/// is there.
///
/// # Errors
/// It cannot be downloaded, or lacks a library.
pub fn unpacked(script: &Path) -> Result<PathBuf> {
    run(&mut Command::new(script)).map(PathBuf::from).context("Libreswan cannot be unpacked")
}
