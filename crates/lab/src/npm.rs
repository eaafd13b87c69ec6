//! npm packages that tests use, installed below the sources in the versions of their lock file.
//!
//! Invariant: a test that needs a package fails without it, and the error names what is missing.

use std::{fs::File, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::program::run;

/// The oldest Node.js that still gets security fixes and that the packages support.
const NODE: u32 = 20;

/// Installs what `package-lock.json` in `dir` lists, unless it is installed, and then runs `script` of `package.json`, if
/// one is named. Tests of other processes that need the same wait.
///
/// # Errors
/// Node.js or npm is not installed or too old, the registry is out of reach, or the script fails.
pub fn install(dir: &Path, script: Option<&str>) -> Result<()> {
    need_node()?;
    let one =
        File::open(dir.join("package.json")).with_context(|| format!("no package in {}", dir.display()))?;
    one.lock().context("can't lock a package")?;
    let modified = |name: &str| dir.join(name).metadata().and_then(|m| m.modified()).ok();
    if modified("node_modules/.package-lock.json") < modified("package-lock.json") {
        npm(dir, &["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .context("npm could not install what tests need: is its registry out of reach?")?;
    }
    script.map_or(Ok(()), |script| npm(dir, &["run", "--silent", script]))
}

fn need_node() -> Result<()> {
    let needed = format!("this test needs Node.js {NODE} or newer, with npm");
    let version = run(Command::new("node").arg("--version")).with_context(|| format!("{needed}: no node"))?;
    let major = version.trim_start_matches('v').split('.').next().and_then(|m| m.parse::<u32>().ok());
    ensure!(major.is_some_and(|major| major >= NODE), "{needed}: this is {version}");
    Ok(())
}

fn npm(dir: &Path, args: &[&str]) -> Result<()> {
    let ran = run(Command::new("npm").args(args).current_dir(dir));
    ran.map(drop)
        .with_context(|| format!("npm {} failed: this test needs Node.js {NODE} with npm", args.join(" ")))
}
