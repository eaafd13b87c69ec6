//! Files that only their owner may read, replaced atomically.
//!
//! Invariant: at every instant, also after a crash, the file has its old content or its new one, never a part of it.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Write},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tempfile::{Builder, NamedTempFile};

use crate::if_exists;

/// The beginning of the names of files that are being written. One is left where the process is killed meanwhile.
pub(crate) const UNFINISHED: &str = ".tmp";

/// Creates the directory with its parents, mode 0700. Sets the mode of an existing one that is open to others.
pub fn private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    if fs::metadata(dir)?.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Replaces the file, mode 0600.
///
/// # Errors
/// As [`prepare`].
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    prepare(path)?.write(content)
}

/// A file that is to be written, in a folder that can be written. Without a write, nothing changes.
#[derive(Debug)]
pub struct PreparedFile {
    path: PathBuf,
    beside: NamedTempFile,
}

/// Prepares to replace the file, for content that cannot be had a second time.
///
/// # Errors
/// Files cannot be created in its folder, or it is a folder, a device or a pipe itself, also by a symbolic link.
pub fn prepare(path: &Path) -> io::Result<PreparedFile> {
    let is_file = if_exists(fs::metadata(path))?.is_none_or(|there| there.is_file());
    // `/dev/stdout` may lead to a file. The link itself would be replaced.
    let is_open = fs::read_link(path).is_ok_and(|to| to.starts_with("/proc"));
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !is_file || is_open {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file, and is not replaced",
        ));
    }
    Ok(PreparedFile { path: path.to_owned(), beside: beside(path)? })
}

impl PreparedFile {
    /// To write it in parts: what is written is there once it is [finished](Self::finish).
    pub fn file(&mut self) -> &mut File {
        self.beside.as_file_mut()
    }

    /// Puts the file in its place.
    pub fn finish(self) -> io::Result<()> {
        self.beside.as_file().sync_all()?;
        self.beside.persist(&self.path)?;
        File::open(parent(&self.path))?.sync_all()
    }

    /// Writes the file, mode 0600.
    pub fn write(self, content: &[u8]) -> io::Result<()> {
        filled(self.beside, content)?.persist(&self.path)?;
        File::open(parent(&self.path))?.sync_all()
    }
}

/// Appends to the file, and waits until the disk has it.
///
/// # Errors
/// It does not exist; or the disk cannot be written, and then a part of the content may have been appended.
pub fn append(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::options().append(true).open(path)?;
    file.write_all(content)?;
    file.sync_data()
}

/// Creates the file, mode 0600.
///
/// # Errors
/// `AlreadyExists`: the file exists.
pub fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    filled(beside(path)?, content)?.persist_noclobber(path)?;
    File::open(parent(path))?.sync_all()
}

/// Creates a file with a name of its own, mode 0600, and returns that name.
pub fn create_unique(folder: &Path, (prefix, suffix): (&str, &str), content: &[u8]) -> io::Result<String> {
    let file = filled(Builder::new().prefix(prefix).suffix(suffix).tempfile_in(folder)?, content)?;
    let (_, path) = file.keep()?;
    File::open(folder)?.sync_all()?;
    Ok(path.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// The content of the file. If it does not exist, it is created with what `make` returns. If another process creates it
/// at the same time, that content is used.
///
/// # Errors
/// An error of `make`, or one of the file, which names it.
pub fn load_or_create<C: AsRef<[u8]>, E: From<io::Error>>(
    path: &Path,
    make: impl FnOnce() -> Result<C, E>,
) -> Result<Vec<u8>, E> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot read or create {}: {error}", path.display()))
    };
    if let Some(content) = if_exists(fs::read(path)).map_err(named)? {
        return Ok(content);
    }
    match create(path, make()?.as_ref()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => created.map_err(named)?,
    }
    Ok(fs::read(path).map_err(named)?)
}

/// The content of a file with a secret. Its group may read it: a service's own.
///
/// # Errors
/// It cannot be read, or every user of the host can read it.
pub fn read_secret(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o007 != 0 {
        let open = "every user of this host can read it: run `chmod o= FILE`";
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            open.replace("FILE", &path.display().to_string()),
        ));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// What to tell the user of a file with a secret that other users of this host can read, if they can: it was written elsewhere, and
/// is used all the same.
pub fn open_to_others(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let shown = path.display();
    let is_open = metadata.permissions().mode() & 0o007 != 0;
    is_open
        .then(|| format!("every user of this host can read the secret in {shown}: run `chmod 600 {shown}`"))
}

/// A temporary file beside its destination, of mode 0600.
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    Builder::new().prefix(UNFINISHED).tempfile_in(parent(path))
}

fn filled(mut file: NamedTempFile, content: &[u8]) -> io::Result<NamedTempFile> {
    file.write_all(content)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_file_is_private_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        private_dir(&state).unwrap();
        let path = state.join("key");
        create(&path, b"one").unwrap();
        assert_eq!(create(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(load_or_create(&path, || io::Result::Ok(b"two")).unwrap(), b"one");
        let other = dir.path().join("other");
        assert_eq!(load_or_create(&other, || io::Result::Ok(b"two")).unwrap(), b"two");
        assert_eq!(fs::metadata(&other).unwrap().permissions().mode() & 0o777, 0o600);
        replace(&path, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
        drop(prepare(&path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(prepare(&state).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(prepare(&state.join("none/key")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn only_a_regular_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), b"one").unwrap();
        std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (link, to) in
            [("null", "/dev/null"), ("out", "/proc/self/fd/1"), ("far", "socket"), ("near", "file")]
        {
            std::os::unix::fs::symlink(to, at(link)).unwrap();
        }
        for wrong in ["socket", "null", "out", "far"] {
            let before = fs::symlink_metadata(at(wrong)).unwrap().ino();
            let error = replace(&at(wrong), b"two").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{wrong}");
            assert_eq!(fs::symlink_metadata(at(wrong)).unwrap().ino(), before, "{wrong} was replaced");
        }
        for device in ["/dev/null", "/dev/stdout"] {
            prepare(Path::new(device)).unwrap_err();
        }
        replace(&at("near"), b"two").unwrap();
        assert_eq!(fs::read(at("near")).unwrap(), b"two");
    }
}
