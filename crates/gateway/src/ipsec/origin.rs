//! Where a gateway runs: in which mounts its tunnels' namespaces have their names, and in which network its rules are.
//!
//! Both outlive the process, and the next run has to find them, `wicketgate down` among them. So names are made only
//! where everybody sees them, and which network it was is written down for as long as anything may be in it.

use std::{
    fs, io, iter,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{IpsecError, strongswan::state_dir::replace};

/// In the state directory: the boot and the network namespace that the last run was in.
const ORIGIN: &str = "network-namespace";

/// Named namespaces, the first place to look for one: what is there can be said as it is.
const NAMED: &str = "/run/netns";

/// No process has so many ancestors; a bound for a table that changes while it is read.
const MOST_ANCESTORS: usize = 1000;

/// Whether this process has mounts of its own, as `ip netns exec` makes them: then nobody else sees what it mounts.
/// Compared with its first ancestor that it may look at, which on most machines is process 1.
pub(super) fn has_own_mounts() -> bool {
    let mounts = |pid: &str| inode(format!("/proc/{pid}/ns/mnt"));
    let ancestors = iter::successors(parent("self"), |pid| parent(pid)).take(MOST_ANCESTORS);
    let first = ancestors.filter_map(|pid| mounts(&pid)).last();
    first.is_some_and(|first| mounts("self").is_some_and(|own| own != first))
}

/// Notes that this run is here.
///
/// # Errors
/// The last run was in another network namespace, which is still there, and left something in it.
pub(super) fn settle(state_dir: &Path) -> Result<(), IpsecError> {
    let failed = |source| IpsecError::StateDir { path: state_dir.to_owned(), source };
    let here = here().map_err(failed)?;
    let file = state_dir.join(ORIGIN);
    match fs::read_to_string(&file) {
        Ok(last) if last == here => return Ok(()),
        // Nothing outlives a boot.
        Ok(last) => {
            if let Some(network) = network_of(&last, &here) {
                if let Some(found) = find(network) {
                    return Err(IpsecError::Elsewhere(found));
                }
                tracing::warn!(
                    "the network namespace of the last run is not found: its packet rules went with it, or are left in it"
                );
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    replace(&file, here.as_bytes()).map_err(failed)
}

/// For when nothing is left: the next run may be anywhere.
pub(super) fn leave(state_dir: &Path) -> io::Result<()> {
    match fs::remove_file(state_dir.join(ORIGIN)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// This boot, and the network namespace of this thread.
fn here() -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let network = fs::metadata("/proc/thread-self/ns/net")?.ino();
    Ok(format!("{} {network}\n", boot.trim()))
}

/// The namespace that `last` names, if it is of the boot of `here`.
fn network_of(last: &str, here: &str) -> Option<u64> {
    let (boot, network) = last.trim().split_once(' ')?;
    here.starts_with(boot).then(|| network.parse().ok()).flatten()
}

/// A path of the network namespace, by its name or by a process in it.
fn find(network: u64) -> Option<PathBuf> {
    let entries = |dir| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let in_processes = entries("/proc").map(|process| process.join("ns/net"));
    entries(NAMED).chain(in_processes).find(|path| inode(path) == Some(network))
}

fn inode(path: impl AsRef<Path>) -> Option<u64> {
    fs::metadata(path).ok().map(|file| file.ino())
}

/// proc_pid_stat(5): after the name, in parentheses of which it may itself have some, come the state and the parent.
fn parent(pid: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?;
    (parent != "0").then(|| parent.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_elsewhere_is_refused_for_as_long_as_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(ORIGIN);
        let here = here().unwrap();
        settle(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), here);
        settle(dir.path()).unwrap();

        let boot = here.split(' ').next().unwrap();
        for past in [format!("{boot} 1\n"), here.replacen(boot, "another", 1), "\n".to_owned()] {
            fs::write(&file, &past).unwrap();
            settle(dir.path()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), here, "after {past}");
        }
        leave(dir.path()).unwrap();
        leave(dir.path()).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn this_process_has_the_mounts_of_its_ancestors() {
        assert!(parent("self").is_some());
        assert!(!has_own_mounts());
        assert_eq!(network_of("b 12\n", "b 13\n"), Some(12));
        assert_eq!(network_of("a 12\n", "b 12\n"), None);
    }
}
