//! The file with the [`SecretKeys`] of a database.
//!
//! Invariant: a file is created only for a database that has no sealed value. With another key, none of them could be opened.

use crate::{Result, StoreError};
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};
use tracing::info;
use wicketgate_seal::{KeyId, SecretKeys};
use wicketgate_system::private_file;
use zeroize::Zeroizing;

/// A file with secret keys, which need not be there yet.
#[derive(Debug, Clone)]
pub struct SecretKeyFile {
    path: PathBuf,
    is_created: bool,
}

impl SecretKeyFile {
    /// A file that the operator has made.
    pub fn existing(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), is_created: false }
    }

    /// A file that is created with a new key, mode 0600, when a database without secrets is opened.
    pub fn created_at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), is_created: true }
    }

    /// Its keys; `None` if there is no such file.
    ///
    /// # Errors
    /// It cannot be read, other users of the host can read it, or it has something else.
    pub fn read(&self) -> Result<Option<SecretKeys>> {
        let text = match private_file::read_secret(&self.path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unusable("cannot read", &error)),
        };
        match SecretKeys::parse(&text) {
            Ok(keys) => Ok(Some(keys)),
            Err(error) => Err(StoreError::Open(format!(
                "the secret key file {} cannot be used: {error}. Restore it from its backup",
                self.path.display()
            ))),
        }
    }

    /// The keys for a database with values that are sealed under the keys `used`.
    pub(crate) fn open_for(&self, used: &BTreeSet<KeyId>) -> Result<SecretKeys> {
        let keys = match self.read()? {
            Some(keys) => keys,
            None if used.is_empty() && self.is_created => self.create()?,
            None => return Err(self.missing(used)),
        };
        let known: BTreeSet<_> = keys.ids().cloned().collect();
        if used.is_subset(&known) {
            return Ok(keys);
        }
        let missing: Vec<_> = used.difference(&known).collect();
        Err(StoreError::Open(format!(
            "the secret key file {} has the {}, and the database has secrets sealed under the {}: restore the file \
             that belongs to this database, or name it with --secret-key-file",
            self.path.display(),
            named(&known.iter().collect::<Vec<_>>()),
            named(&missing)
        )))
    }

    fn create(&self) -> Result<SecretKeys> {
        let line = SecretKeys::new_line()?;
        private_file::create(&self.path, line.as_bytes())
            .map_err(|error| self.unusable("cannot create", &error))?;
        info!(file = %self.path.display(), "created the secret key file: keep a copy apart from those of the database");
        self.read()?.ok_or_else(|| self.missing(&BTreeSet::new()))
    }

    fn missing(&self, used: &BTreeSet<KeyId>) -> StoreError {
        let path = self.path.display();
        StoreError::Open(if used.is_empty() {
            format!(
                "the secret key file {path} does not exist: create it with `openssl rand -hex 32`, mode 0600"
            )
        } else {
            format!(
                "the database has secrets sealed under the {}, and the secret key file {path} does not exist: restore \
                 it from its backup, or name it with --secret-key-file",
                named(&used.iter().collect::<Vec<_>>())
            )
        })
    }

    fn unusable(&self, what: &str, error: &io::Error) -> StoreError {
        StoreError::Open(format!("{what} the secret key file {}: {error}", self.path.display()))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// `key a` or `keys a, b`.
fn named(ids: &[&KeyId]) -> String {
    let list: Vec<_> = ids.iter().map(ToString::to_string).collect();
    format!("{} {}", if ids.len() == 1 { "key" } else { "keys" }, list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt as _};

    #[test]
    fn a_file_is_created_only_for_a_database_without_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let file = SecretKeyFile::created_at(dir.path().join("secret-key"));
        let used = BTreeSet::from([KeyId::of("1.0123456789abcdef.00").unwrap()]);
        let error = file.open_for(&used).unwrap_err().to_string();
        assert!(
            error.contains("0123456789abcdef") && error.contains("restore it from its backup"),
            "{error}"
        );
        assert!(!file.path().exists());
        let made = file.open_for(&BTreeSet::new()).unwrap();
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        let ids: BTreeSet<_> = made.ids().cloned().collect();
        assert_eq!(file.open_for(&ids).unwrap().ids().count(), 1);
        let error = file.open_for(&used).unwrap_err().to_string();
        let own = ids.first().unwrap().to_string();
        assert!(error.contains(&own) && error.contains("0123456789abcdef"), "{error}");
    }

    #[test]
    fn a_named_file_is_never_created_and_must_be_private() {
        let dir = tempfile::tempdir().unwrap();
        let file = SecretKeyFile::existing(dir.path().join("secret-key"));
        let error = file.open_for(&BTreeSet::new()).unwrap_err().to_string();
        assert!(error.contains("openssl rand") && !file.path().exists(), "{error}");
        fs::write(file.path(), SecretKeys::new_line().unwrap().as_bytes()).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        let error = file.read().unwrap_err().to_string();
        assert!(error.contains("chmod o="), "{error}");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(file.open_for(&BTreeSet::new()).unwrap().ids().count(), 1);
        fs::write(file.path(), "geheim").unwrap();
        let error = file.read().unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("geheim"), "{error}");
    }
}
