//! Where a gateway runs: the mount namespace of its tunnels' names, and the network namespace of its rules.
//!
//! Both outlive the process, and the next run has to find them, `wicketgate down` included. So names are made only
//! where every process sees them, and the network namespace is recorded for as long as anything may be in it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use wicketgate_system::{if_exists, private_file::replace};

use super::GroundError;

/// In the state directory: boot id and network namespace of the last run.
const ORIGIN: &str = "network-namespace";

/// Named namespaces, searched first because their path is readable.
const NAMED: &str = "/run/netns";

/// Whether names made by this process are invisible to others: its mounts follow those of others, but not the reverse,
/// as with `ip netns exec` and sandboxed services (mount_namespaces(7), "slave"). A container of its own is not
/// affected.
pub(super) fn hides_names() -> bool {
    fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| is_slave(&mounts, Path::new(NAMED)))
}

/// proc_pid_mountinfo(5): the fifth field is the mount point; optional fields are between the sixth and a dash.
fn is_slave(mounts: &str, place: &Path) -> bool {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(4);
        let at = fields.next().filter(|at| place.starts_with(at))?;
        let is_slave = fields.skip(1).take_while(|field| *field != "-").any(|f| f.starts_with("master:"));
        Some((at.len(), is_slave))
    });
    // Of several mounts at one point, the last one is visible.
    mounts.max_by_key(|(length, _)| *length).is_some_and(|(_, is_slave)| is_slave)
}

/// Records the namespace of this run.
///
/// # Errors
/// The last run was in another network namespace, which still exists, and left something in it.
pub(super) fn settle(state_dir: &Path) -> Result<(), GroundError> {
    let failed = |error| GroundError::StateDir { path: state_dir.to_owned(), error };
    let here = here().map_err(failed)?;
    let file = state_dir.join(ORIGIN);
    let last = if_exists(fs::read_to_string(&file)).map_err(failed)?;
    if last.as_ref() == Some(&here) {
        return Ok(());
    }
    // Nothing survives a reboot.
    if let Some(network) = last.and_then(|last| network_of(&last, &here)) {
        if let Some(found) = find(network) {
            return Err(GroundError::Elsewhere { found, file });
        }
        tracing::warn!(
            "the network namespace of the last run is not found: its packet rules went with it, or are left in it"
        );
    }
    replace(&file, here.as_bytes()).map_err(failed)
}

/// Removes the record, when nothing is left: the next run may be anywhere.
pub(super) fn leave(state_dir: &Path) -> io::Result<()> {
    if_exists(fs::remove_file(state_dir.join(ORIGIN))).map(drop)
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
    let is_it = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.ino() == network);
    entries(NAMED).chain(in_processes).find(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_in_another_namespace_is_refused_while_the_first_one_exists() {
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
    fn names_are_hidden_if_their_mount_is_a_slave_of_another_mount() {
        let is_slave = |mounts: &str| is_slave(mounts, Path::new("/run/netns"));
        let root = "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n";
        let run = "30 27 0:9 / /run rw shared:2 master:7 - tmpfs tmpfs rw\n";
        let named = |tags: &str| format!("31 30 0:9 /netns /run/netns rw{tags} - tmpfs tmpfs rw\n");
        assert!(!is_slave(root) && !is_slave(""));
        assert!(is_slave(&(root.to_owned() + run)), "a service's sandbox");
        assert!(is_slave(&(root.to_owned() + &named(" shared:5 master:3"))), "`ip netns exec`");
        assert!(!is_slave(&(run.to_owned() + &named(" shared:5"))), "the innermost mount point counts");
        assert!(!is_slave(&(named(" master:3") + &named(""))), "the topmost mount counts");
        assert!(!is_slave(&(root.to_owned() + "32 27 0:9 / /run/netnsx rw master:7 - tmpfs tmpfs rw\n")));
    }

    #[test]
    fn only_a_namespace_of_this_boot_is_searched() {
        assert_eq!(network_of("b 12\n", "b 13\n"), Some(12));
        assert_eq!(network_of("a 12\n", "b 12\n"), None);
    }
}
