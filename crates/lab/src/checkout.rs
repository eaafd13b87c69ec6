//! Files of the repository, for tests.
//!
//! Invariant: no program contains the directory that it was built in, so that the same sources give the same bytes anywhere.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

/// A file that is at the root of the repository, and nowhere else.
const MARK: &str = "packaging/unpack.sh";

/// A path below the root of the repository, which the current directory or this executable is in.
///
/// # Errors
///
/// Neither is.
pub fn in_checkout(path: &str) -> Result<PathBuf> {
    let starts = [env::current_dir(), env::current_exe()];
    let root = starts.iter().flatten().find_map(|start| root_above(start));
    Ok(root
        .context("neither the current directory nor this executable is in a checkout of Wicketgate")?
        .join(path))
}

fn root_above(start: &Path) -> Option<&Path> {
    start.ancestors().find(|directory| directory.join(MARK).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_repository_are_found_from_any_directory_of_it() {
        assert!(in_checkout("Cargo.lock").unwrap().is_file());
        assert_eq!(root_above(Path::new("/")), None);
    }
}
