//! What a charon sees and may do. It parses what any host of the internet sends: an attacker who takes one over should reach
//! as little as possible beyond its tunnel.
//!
//! Invariants: its root is made for it, with programs and libraries to read, three devices or four, and its own directory as
//! `/run`, the only place to write. Neither the data directory nor `/proc` is in it, nor the old root below it. It has three
//! capabilities, which are the host's, and gains none; and where this process may give it one, a user of its own, so that it
//! can neither end nor trace other processes, nor another tunnel's daemon.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown, lchown, symlink},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Gid, Mode, Uid, makedev, mknodat},
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_move,
        mount_remount, unmount,
    },
    process::{chdir, chroot, pivot_root, umask},
    thread::{
        CapabilitySet, CapabilitySets, UnshareFlags, capabilities, configure_capability_in_ambient_set,
        remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
        set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};
use wicketgate_model::EspMode;

/// SAs, policies and its TUN device; IKE's ports; sockets that receive by protocol.
const NEEDED: CapabilitySet =
    CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_BIND_SERVICE).union(CapabilitySet::NET_RAW);

/// What this process needs for daemons with other users: to make them, to give them their directories, and to find them again
/// (`SYS_PTRACE`: the namespaces and the program of another user's process are shown to none without it).
const FOR_USERS: CapabilitySet = CapabilitySet::SETUID
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SYS_PTRACE);

/// Users from here on are no account's and no service's of the host itself: 2^14 for each of 2^16 gateways on a host. Containers
/// and directories of other programs that are given numbers up there have to be given others.
const FIRST_USER: u32 = 1 << 30;
const USERS_OF_A_GATEWAY: u32 = 14;

/// Below `/usr`: what charon and the shell before it are loaded from.
const PROGRAMS: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
const DEVICES: [&str; 3] = ["null", "random", "urandom"];
const TUN: &str = "dev/net/tun";
/// Linux, Documentation/admin-guide/devices.txt.
const TUN_NUMBERS: (u32, u32) = (10, 200);

/// The root has directories and links, and is read-only in the end.
const OPTIONS: &std::ffi::CStr = c"mode=0755,size=256k";
const READ_ONLY: MountFlags =
    MountFlags::BIND.union(MountFlags::RDONLY).union(MountFlags::NOSUID).union(MountFlags::NODEV);

/// How the daemons of a gateway are confined.
#[derive(Debug, Clone, Copy)]
pub(super) struct Confinement {
    has_tun: bool,
    has_users: bool,
    instance: u16,
}

/// How one daemon is confined.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    has_tun: bool,
    user: Option<u32>,
}

impl Confinement {
    /// `scratch` is a directory of this gateway.
    pub(super) fn find(esp: EspMode, instance: u16, scratch: &Path) -> Self {
        let has_tun = esp == EspMode::Userland;
        let may = capabilities(None).is_ok_and(|has| has.effective.contains(FOR_USERS));
        let has_users = may && has_all_users() && (!has_tun || is_tun_open() || may_make_tun(scratch));
        Self { has_tun, has_users, instance }
    }

    pub(super) fn of_slot(self, slot: u16) -> Cell {
        let number = (u32::from(self.instance) << USERS_OF_A_GATEWAY) + u32::from(slot);
        Cell { has_tun: self.has_tun, user: self.has_users.then_some(FIRST_USER + number) }
    }
}

impl Cell {
    /// Whether a user is one of daemons.
    pub(super) fn is_user(user: u32) -> bool {
        (FIRST_USER..FIRST_USER << 1).contains(&user)
    }

    /// Gives the daemon the files of its directory.
    pub(super) fn own(self, path: &Path) -> io::Result<()> {
        self.user.map_or(Ok(()), |user| lchown(path, Some(user), Some(user)))
    }

    /// Confines this thread, which only starts the daemon: `dir` has an empty directory `root`, and `run` becomes `/run`.
    pub(super) fn enter(self, dir: &Path) -> io::Result<()> {
        unshare_mounts()?;
        // This thread's alone, as its mounts are. With the unit's, the daemon's user could not enter the directories of its root.
        umask(Mode::WGRP | Mode::WOTH);
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let root = dir.join("root");
        mount("wicketgate", &root, "tmpfs", MountFlags::NOSUID | MountFlags::NOEXEC, OPTIONS)?;
        self.furnish(&root, &dir.join("run"))?;
        chdir(&root)?;
        match pivot_root(".", ".") {
            // The old root is on top of the new one.
            Ok(()) => unmount(".", UnmountFlags::DETACH)?,
            // An initial RAM disk cannot be put elsewhere, only be covered.
            Err(Errno::INVAL) => {
                mount_move(".", "/")?;
                chroot(".")?;
            }
            Err(error) => return Err(error.into()),
        }
        chdir("/")?;
        mount_remount("/", MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC, c"")?;
        self.disarm()
    }

    fn furnish(self, root: &Path, run: &Path) -> io::Result<()> {
        for name in PROGRAMS {
            let (whole, short) = (Path::new("/usr").join(name), Path::new("/").join(name));
            if whole.is_dir() {
                read_only(&whole, root)?;
            }
            match fs::read_link(&short) {
                Ok(to) => symlink(to, root.join(name))?,
                Err(_) if short.is_dir() => read_only(&short, root)?,
                Err(_) => {}
            }
        }
        directory(&root.join("etc"))?;
        // Without the first, libraries are looked for where they usually are; without the others, traffic selectors have numbers
        // in place of names.
        for file in ["ld.so.cache", "protocols", "services"].map(|file| Path::new("/etc").join(file)) {
            if file.is_file() {
                bind_file(&file, &below(root, &file))?;
            }
        }
        directory(&root.join("dev/net"))?;
        for device in DEVICES {
            bind_file(&Path::new("/dev").join(device), &root.join("dev").join(device))?;
        }
        if self.has_tun {
            self.furnish_tun(&root.join(TUN))?;
        }
        directory(&root.join("var"))?;
        // Its pid file's place is compiled in.
        symlink("/run", root.join("var/run"))?;
        directory(&root.join("run"))?;
        mount_bind(run, root.join("run"))?;
        let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        Ok(mount_remount(root.join("run"), flags, c"")?)
    }

    /// The host's device, or one like it for a user who may not open that.
    fn furnish_tun(self, tun: &Path) -> io::Result<()> {
        if let Some(user) = self.user.filter(|_| !is_tun_open()) {
            make_tun(tun)?;
            return chown(tun, Some(user), Some(user));
        }
        bind_file(&Path::new("/").join(TUN), tun)
    }

    /// Leaves this thread what charon needs.
    fn disarm(self) -> io::Result<()> {
        for capability in CapabilitySet::all().difference(NEEDED).iter() {
            // Not permitted in a unit without SETPCAP: then the next steps are what counts.
            let _ = remove_capability_from_bounding_set(capability);
        }
        if let Some(user) = self.user {
            let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
            set_keep_capabilities(true)?;
            set_thread_groups(&[])?;
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
        }
        set_capabilities(None, CapabilitySets { effective: NEEDED, permitted: NEEDED, inheritable: NEEDED })?;
        for capability in NEEDED.iter() {
            configure_capability_in_ambient_set(capability, true)?;
        }
        // Root, too, has no more after it has become another program.
        Ok(set_no_new_privs(true)?)
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for the flag FILES, which lets threads have other descriptors; this is another flag"
)]
fn unshare_mounts() -> io::Result<()> {
    Ok(rustix::thread::unshare(UnshareFlags::NEWNS)?)
}

fn directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// Shows a directory of the host at its own place.
fn read_only(path: &Path, root: &Path) -> io::Result<()> {
    let place = below(root, path);
    directory(&place)?;
    mount_bind(path, &place)?;
    Ok(mount_remount(&place, READ_ONLY, c"")?)
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Nothing in the root is ever opened to be written: another thread may start a program meanwhile, which has a copy of all
/// descriptors until it begins, and the root could not become read-only.
fn bind_file(file: &Path, place: &Path) -> io::Result<()> {
    mknodat(CWD, place, FileType::RegularFile, Mode::RUSR | Mode::RGRP | Mode::ROTH, 0)?;
    mount_bind(file, place)?;
    // What is written to a device does not go through its mount.
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC;
    Ok(mount_remount(place, flags, c"")?)
}

/// Whether every user may open the host's TUN device, as udev makes it.
fn is_tun_open() -> bool {
    fs::metadata(Path::new("/").join(TUN)).is_ok_and(|m| m.permissions().mode() & 0o006 == 0o006)
}

fn make_tun(path: &Path) -> io::Result<()> {
    let (major, minor) = TUN_NUMBERS;
    Ok(mknodat(CWD, path, FileType::CharacterDevice, Mode::RUSR | Mode::WUSR, makedev(major, minor))?)
}

fn may_make_tun(scratch: &Path) -> bool {
    let path = scratch.join("tun");
    let _ = fs::remove_file(&path);
    let made = make_tun(&path).is_ok();
    made && fs::remove_file(&path).is_ok()
}

/// Not so in a container whose users are others on the host (user_namespaces(7)).
fn has_all_users() -> bool {
    let all = |line: &str| line.split_whitespace().eq(["0", "0", "4294967295"]);
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.lines().any(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_daemon_has_a_user_of_its_own(a: u16, b: u16, at in 0_u16..16_000, other in 0_u16..16_000) {
            let user = |instance, slot| {
                Confinement { has_tun: false, has_users: true, instance }.of_slot(slot).user.unwrap()
            };
            prop_assert_eq!(user(a, at) == user(b, other), (a, at) == (b, other));
            prop_assert!((FIRST_USER..1 << 31).contains(&user(a, at)));
        }
    }
}
