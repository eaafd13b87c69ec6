//! The directory in which a program keeps what outlives it: private, and used by one process at a time.
//!
//! Invariants: a directory in which there is something else is refused before anything in it, or of it, is changed; one that is used
//! belongs to this user, as the kernel says of the open directory and not of a path, and nobody else can put another in its place,
//! except the owner of a directory above it, whom the log names.

use std::{
    collections::BTreeSet,
    fs::{self, DirEntry, File, Metadata, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, ensure};
use rustix::{fs::OFlags, process::geteuid};
use tracing::warn;

use crate::{
    created_directories::CreatedDirectories,
    directory_lock::{DirectoryLock, LOCK_FILE, is_same},
    private_file::UNFINISHED,
};

/// What a file system has at its root (mke2fs(8)).
const LOST_AND_FOUND: &str = "lost+found";

/// Which program's directory it is.
#[derive(Debug, Clone, Copy)]
pub struct DirectoryKind {
    pub program: &'static str,
    /// Like "data directory".
    pub name: &'static str,
    /// The flag that names the directory.
    pub flag: &'static str,
    /// What the program creates first in it: the directory is known by it.
    pub first: &'static str,
    /// Files that an operator may put into a new one before the program is started.
    pub given: &'static [&'static str],
    /// What to do while another process uses it.
    pub busy: &'static str,
}

/// Held until it is dropped. What it has created and is empty then is removed, so that a start that is refused leaves nothing.
#[derive(Debug)]
pub struct OwnDirectory {
    path: PathBuf,
    kind: DirectoryKind,
    created: CreatedDirectories,
    _lock: DirectoryLock,
}

impl OwnDirectory {
    /// Opens the directory, which is created if it does not exist. An empty one is taken over and made private, and so is one
    /// that has only what a file system or a first start that was interrupted leaves.
    ///
    /// # Errors
    /// One sentence: another user owns it, or may replace it, it has other files in it, another process uses it, or it cannot be
    /// written.
    pub fn open(path: &Path, kind: &DirectoryKind) -> anyhow::Result<Self> {
        let DirectoryKind { name, flag, first, given, .. } = kind;
        let shown = path.display();
        let cannot = |what: &str| cannot(what, path, kind);
        if path.exists() {
            let found = fs::metadata(path).with_context(|| format!("cannot read the {name} {shown}"))?;
            is_of_this_user(&found, path, kind)?;
            let is_ours = path.join(first).try_exists().with_context(|| cannot("read"))?;
            let mut entries = fs::read_dir(path).with_context(|| cannot("read"))?;
            let is_free = is_ours || entries.all(|entry| entry.is_ok_and(|entry| is_harmless(&entry, given)));
            ensure!(is_free, "the directory {shown} has other files in it: choose another with {flag}");
            if is_ours && found.permissions().mode() & 0o077 != 0 {
                warn!("the {name} {shown} was open to other users: its mode is set to 0700");
            }
        }
        stands_safely(path, kind)?;
        let created = CreatedDirectories::default();
        created.create(path).with_context(|| cannot("create or change"))?;
        Self::take(path, kind, created)
    }

    /// Takes the directory that is there now, whoever has made it meanwhile.
    fn take(path: &Path, kind: &DirectoryKind, created: CreatedDirectories) -> anyhow::Result<Self> {
        let DirectoryKind { program, name, busy, .. } = kind;
        let shown = path.display();
        let cannot = |what: &str| cannot(what, path, kind);
        let path = fs::canonicalize(path).with_context(|| cannot("read"))?;
        let directory = open_directory(&path).with_context(|| cannot("open"))?;
        is_of_this_user(&directory.metadata().with_context(|| cannot("read"))?, &path, kind)?;
        let lock = DirectoryLock::take(&path).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => anyhow!("another {program} is using the {name} {shown}: {busy}"),
            _ => anyhow!(e).context(cannot("write to")),
        })?;
        let is_same = is_same(&directory, &path).with_context(|| cannot("read"))?;
        ensure!(
            is_same,
            "the {name} {shown} was replaced by another directory meanwhile: look who has done it"
        );
        Ok(Self { path, kind: *kind, created, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of a directory that its user has open.
    pub fn lock_file(path: &Path) -> PathBuf {
        path.join(LOCK_FILE)
    }

    /// A private directory in it.
    pub fn subdirectory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        self.created.create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(path)
    }
}

/// While the lock is held: no other process uses the directory.
impl Drop for OwnDirectory {
    fn drop(&mut self) {
        let DirectoryKind { first, given, .. } = self.kind;
        let first_path = self.path.join(first);
        self.created.take_back(|dir| dir.starts_with(&self.path) && dir != self.path && dir != first_path);
        // The directory is known by it while there is anything of the program in it.
        let is_harmless = |entry: io::Result<DirEntry>| {
            entry.is_ok_and(|entry| entry.path() == first_path || is_harmless(&entry, given))
        };
        if fs::read_dir(&self.path).is_ok_and(|mut all| all.all(is_harmless)) {
            self.created.take_back(|_| true);
        }
    }
}

/// The number of root.
const ROOT: u32 = 0;

fn cannot(what: &str, path: &Path, DirectoryKind { name, flag, .. }: &DirectoryKind) -> String {
    format!("cannot {what} the {name} {}: choose another with {flag}, or run as its owner", path.display())
}

/// Not by a link: the path has none, unless somebody has just put it there.
fn open_directory(path: &Path) -> io::Result<File> {
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// The mode bits of a directory: others may write to it, and of a directory in which each user changes only what is their own.
const WRITABLE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Who may write to a directory above it can move it away, and put another in its place.
fn stands_safely(path: &Path, DirectoryKind { name, flag, .. }: &DirectoryKind) -> anyhow::Result<()> {
    let (shown, own) = (path.display(), geteuid().as_raw());
    let absolute = std::path::absolute(path)?;
    let place = absolute.ancestors().skip(1).find_map(|dir| fs::canonicalize(dir).ok());
    // A link leads to another place.
    let real = fs::canonicalize(path).ok().and_then(|real| real.parent().map(Path::to_owned));
    let places = [place, real];
    let all: BTreeSet<_> = places.iter().flatten().flat_map(|place| place.ancestors()).collect();
    for above in all {
        let found = fs::metadata(above).with_context(|| format!("cannot read {}", above.display()))?;
        let (mode, owner, above) = (found.permissions().mode(), found.uid(), above.display());
        ensure!(
            mode & WRITABLE == 0 || mode & STICKY != 0,
            "any user of this host can replace the {name} {shown}, since {above} can be written by all: run `chmod o-w {above}`, or \
             choose another place with {flag}"
        );
        if owner != own && owner != ROOT {
            warn!(
                "the user with the number {owner} can replace the {name} {shown}, and the keys in it: {above} is theirs"
            );
        }
    }
    Ok(())
}

/// Another user who owns the directory could replace what is in it, also when its mode is 0700.
fn is_of_this_user(
    found: &Metadata,
    path: &Path,
    DirectoryKind { name, flag, .. }: &DirectoryKind,
) -> anyhow::Result<()> {
    let shown = path.display();
    let (owner, own) = (found.uid(), geteuid().as_raw());
    ensure!(
        owner == own || own == ROOT,
        "the {name} {shown} belongs to the user with the number {owner}: run this as that user{}, or choose another with {flag}",
        if owner == ROOT { ", root" } else { "" }
    );
    ensure!(
        owner == own,
        "the {name} {shown} belongs to the user with the number {owner}, who could replace the keys in it: choose another \
         with {flag}, or run `chown -R {own} {shown}` if what is in it can be trusted"
    );
    Ok(())
}

/// Whether it says nothing about whose the directory is.
fn is_harmless(entry: &DirEntry, given: &[&str]) -> bool {
    let (name, kind) = (entry.file_name(), entry.file_type());
    let is_unfinished = name.as_encoded_bytes().starts_with(UNFINISHED.as_bytes());
    match kind {
        Ok(kind) if kind.is_file() => {
            name == LOCK_FILE || is_unfinished || given.iter().any(|given| name == *given)
        }
        Ok(kind) if kind.is_dir() => name == LOST_AND_FOUND,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: DirectoryKind = DirectoryKind {
        program: "program",
        name: "data directory",
        flag: "--data-dir",
        first: "key",
        given: &["secret"],
        busy: "stop it first",
    };

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_directory_is_made_private_and_used_by_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let held = OwnDirectory::open(&path, &KIND).unwrap();
        assert_eq!(mode(&path), 0o700);
        let second = OwnDirectory::open(&path, &KIND).unwrap_err().to_string();
        assert!(second.starts_with("another program is using the data directory"), "{second}");
        drop(held);
        // As after a first start that was killed.
        drop(OwnDirectory::open(&path, &KIND).unwrap());
        fs::write(path.join("key"), "").unwrap();
        fs::write(path.join("more"), "").unwrap();
        OwnDirectory::open(&path, &KIND).unwrap();
    }

    #[test]
    fn what_a_refused_start_created_is_removed_unless_the_directory_would_not_be_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/data");
        let start = |file: &str| {
            let own = OwnDirectory::open(&path, &KIND).unwrap();
            own.subdirectory("key").unwrap();
            own.subdirectory("gateway/tunnels").unwrap();
            if !file.is_empty() {
                fs::write(path.join(file), "1").unwrap();
            }
        };
        let left = || {
            let names =
                fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<_> = names.filter(|name| name != LOCK_FILE).collect();
            names.sort();
            names
        };
        start("");
        assert!(!dir.path().join("new").exists());
        start("secret");
        assert_eq!(left(), ["secret"]);
        start("database");
        assert_eq!(left(), ["database", "key", "secret"]);
        // Those were there before.
        fs::remove_file(path.join("database")).unwrap();
        start("");
        assert_eq!(left(), ["key", "secret"]);
    }

    #[test]
    fn a_directory_of_another_user_is_refused_and_unchanged() {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: only root gives a directory away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(65534), None).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = OwnDirectory::open(dir.path(), &KIND).unwrap_err().to_string();
        assert!(
            error.contains("belongs to the user with the number 65534") && error.contains("--data-dir"),
            "{error}"
        );
        assert_eq!((mode(dir.path()), fs::read_dir(dir.path()).unwrap().count()), (0o755, 0));
    }

    #[test]
    fn a_directory_that_another_user_makes_meanwhile_is_refused_by_name() {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: only root gives a directory away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        // As if it had not been there when it was looked at.
        let taken = OwnDirectory::take(&path, &KIND, CreatedDirectories::default()).unwrap_err().to_string();
        assert!(
            taken.contains("data belongs to the user with the number 65534") && taken.contains("--data-dir"),
            "{taken}"
        );
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "nothing was written");
    }

    #[test]
    fn a_link_that_is_put_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        open_directory(&real).unwrap();
        open_directory(&link).unwrap_err();
        // One that an operator has made is resolved first.
        assert_eq!(OwnDirectory::open(&link, &KIND).unwrap().path(), fs::canonicalize(&real).unwrap());
    }

    #[test]
    fn a_place_where_all_users_can_write_is_refused_unless_it_is_sticky() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("place");
        fs::create_dir(&place).unwrap();
        for (mode, is_refused) in [(0o777, true), (0o1777, false), (0o775, false), (0o702, true)] {
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
            for path in [place.join("data"), place.join("new/data")] {
                match OwnDirectory::open(&path, &KIND) {
                    Ok(_) => assert!(!is_refused, "{mode:o}"),
                    Err(error) => {
                        let error = error.to_string();
                        assert!(
                            is_refused && error.contains("chmod o-w") && error.contains("--data-dir"),
                            "{error}"
                        );
                        assert!(!path.exists(), "nothing is created");
                    }
                }
            }
        }
    }

    #[test]
    fn what_a_file_system_or_an_interrupted_start_leaves_is_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(LOST_AND_FOUND)).unwrap();
        // As when the program is killed while it writes its key.
        let begun = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(dir.path()).unwrap();
        begun.keep().unwrap();
        drop(OwnDirectory::open(dir.path(), &KIND).unwrap());
        drop(OwnDirectory::open(dir.path(), &KIND).unwrap());
        fs::create_dir(dir.path().join(format!("{UNFINISHED}-project"))).unwrap();
        OwnDirectory::open(dir.path(), &KIND).unwrap_err();
    }

    #[test]
    fn a_directory_with_other_files_is_refused_and_left_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        // Other programs have lock files of the same name.
        for file in ["letter", LOCK_FILE] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let refused = OwnDirectory::open(dir.path(), &KIND).unwrap_err().to_string();
        assert!(refused.contains("has other files in it"), "{refused}");
        assert_eq!(mode(dir.path()), 0o755);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing was added");
    }
}
