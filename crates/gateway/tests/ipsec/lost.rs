//! While no gateway runs, files and names that identify its daemons disappear. The next run ends these daemons.

use std::{fs, path::Path, process::Command};

use super::world::{World, charon_of, desired, is_root, key};

/// Whether a daemon has ended; one that has not is ended now.
fn has_ended(charon: i32) -> bool {
    let has_ended = fs::read_link(format!("/proc/{charon}/exe")).is_err();
    if !has_ended {
        let pid = rustix::process::Pid::from_raw(charon).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    has_ended
}

/// A directory of the same name and another inode.
fn replace_directory(dir: &Path) {
    fs::rename(dir, dir.with_extension("old")).unwrap();
    fs::create_dir(dir).unwrap();
}

#[test]
fn a_daemon_without_its_namespace_name_or_directory_is_ended() {
    if !is_root() {
        return;
    }
    World::new("lost", 0).run(|world| async move {
        let wanted = desired(0, &[&key(0)]);
        let backend = world.backend().await;
        backend.ensure(&wanted).await.unwrap();
        let first = charon_of(&world, 0);
        drop(backend);
        let instance = fs::read_to_string(world.state_dir.join("instance")).unwrap();
        let name = format!("wicketgate-{}-0", instance.trim());
        assert!(Command::new("ip").args(["netns", "del", &name]).status().unwrap().success());

        let backend = world.backend().await;
        backend.ensure(&wanted).await.unwrap();
        let second = charon_of(&world, 0);
        assert_ne!(first, second);
        assert!(has_ended(first), "the daemon continued in a namespace without a name");
        drop(backend);

        let dir = world.state_dir.join("tunnels/0");
        fs::remove_file(dir.join("pid")).unwrap();
        replace_directory(&dir.join("run"));
        let backend = world.backend().await;
        backend.remove(wanted.id).await.unwrap();
        assert!(has_ended(second), "the daemon continued although its directory was replaced");
        backend.purge().await.unwrap();
        assert_eq!(world.traces(), Vec::<String>::new());
    });
}
