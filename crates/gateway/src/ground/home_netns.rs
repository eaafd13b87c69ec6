//! Where a gateway runs: in which mounts its tunnels' namespaces have their names, and in which network its rules are.
//!
//! Both outlive the process, and the next run has to find them, `wicketgate down` among them. So names are made only
//! where everybody sees them, and which network it was is written down for as long as anything may be in it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use wicketgate_system::private_file::replace;

use super::GroundError;

/// In the state directory: the boot and the network namespace that the last run was in.
const ORIGIN: &str = "network-namespace";

/// Named namespaces, the first place to look for one: what is there can be said as it is.
const NAMED: &str = "/run/netns";

/// Whether the names that this process gives are for itself: it sees the mounts of others there, and they do not see its
/// own, as `ip netns exec` and a service's sandbox make it (mount_namespaces(7), "slave"). In a container that has all to
/// itself it is not so.
pub(super) fn hides_names() -> bool {
    fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| is_slave(&mounts, Path::new(NAMED)))
}

/// proc_pid_mountinfo(5): the fifth field is the mount's place; optional ones are between the sixth and a dash.
fn is_slave(mounts: &str, place: &Path) -> bool {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(4);
        let at = fields.next().filter(|at| place.starts_with(at))?;
        let is_slave = fields.skip(1).take_while(|field| *field != "-").any(|f| f.starts_with("master:"));
        Some((at.len(), is_slave))
    });
    // Of those at one place, the last one hides the others.
    mounts.max_by_key(|(length, _)| *length).is_some_and(|(_, is_slave)| is_slave)
}

/// Notes that this run is here.
///
/// # Errors
/// The last run was in another network namespace, which is still there, and left something in it.
pub(super) fn settle(state_dir: &Path) -> Result<(), GroundError> {
    let failed = |source| GroundError::StateDir { path: state_dir.to_owned(), source };
    let here = here().map_err(failed)?;
    let file = state_dir.join(ORIGIN);
    match fs::read_to_string(&file) {
        Ok(last) if last == here => return Ok(()),
        // Nothing outlives a boot.
        Ok(last) => {
            if let Some(network) = network_of(&last, &here) {
                if let Some(found) = find(network) {
                    return Err(GroundError::Elsewhere { found, file });
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
    fn names_are_hidden_where_the_mount_they_are_in_follows_another() {
        let is_slave = |mounts: &str| is_slave(mounts, Path::new("/run/netns"));
        let root = "27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n";
        let run = "30 27 0:9 / /run rw shared:2 master:7 - tmpfs tmpfs rw\n";
        let named = |tags: &str| format!("31 30 0:9 /netns /run/netns rw{tags} - tmpfs tmpfs rw\n");
        assert!(!is_slave(root) && !is_slave(""));
        assert!(is_slave(&(root.to_owned() + run)), "a service's sandbox");
        assert!(is_slave(&(root.to_owned() + &named(" shared:5 master:3"))), "`ip netns exec`");
        assert!(!is_slave(&(run.to_owned() + &named(" shared:5"))), "what is nearest counts");
        assert!(!is_slave(&(named(" master:3") + &named(""))), "what is on top counts");
        assert!(!is_slave(&(root.to_owned() + "32 27 0:9 / /run/netnsx rw master:7 - tmpfs tmpfs rw\n")));
    }

    #[test]
    fn only_a_namespace_of_this_boot_is_looked_for() {
        assert_eq!(network_of("b 12\n", "b 13\n"), Some(12));
        assert_eq!(network_of("a 12\n", "b 12\n"), None);
    }
}
