//! Programs of Debian packages that tests run but do not install.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{checkout::in_checkout, program::run};

const SCRIPT: &str = "packaging/unpack.sh";

/// The root of Debian packages, which are unpacked there unless they already are.
///
/// # Errors
/// They cannot be downloaded, or lack a library.
pub fn unpacked(packages: &[&str]) -> Result<PathBuf> {
    let root = run(Command::new(in_checkout(SCRIPT)?).args(packages)).map(PathBuf::from);
    root.with_context(|| format!("{packages:?} cannot be unpacked"))
}
