//! Programs of Debian packages that tests run but do not install.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::program::run;

const SCRIPT: &str = "../../packaging/unpack.sh";

/// The root of Debian packages, which are unpacked there unless they already are.
///
/// # Errors
/// They cannot be downloaded, or lack a library.
pub fn unpacked(packages: &[&str]) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(SCRIPT);
    let root = run(Command::new(script).args(packages)).map(PathBuf::from);
    root.with_context(|| format!("{packages:?} cannot be unpacked"))
}
