//! The key under which a gateway seals what it keeps of its desired state: it has the tunnels' pre-shared keys.

use std::{io, path::Path};

use anyhow::{Context as _, bail};
use wicketgate_seal::SecretKeys;
use wicketgate_system::private_file;
use zeroize::Zeroizing;

/// The keys of the file, one a line. With `is_created`, a missing file is made, mode 0600.
///
/// # Errors
/// It cannot be read or made, every user of the host can read it, or it has something else.
pub fn state_keys(file: &Path, is_created: bool) -> anyhow::Result<SecretKeys> {
    let shown = file.display();
    let cannot_read = || format!("cannot read the state key file {shown}");
    let text = match private_file::read_secret(file) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_created => {
            let line = SecretKeys::new_line()?;
            private_file::create(file, line.as_bytes())
                .with_context(|| format!("cannot create the state key file {shown}"))?;
            line
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!(
                "the state key file {shown} does not exist: restore it, or create one with `openssl rand -hex 32`, mode 0600"
            )
        }
        Err(error) => return Err(error).with_context(cannot_read),
    };
    SecretKeys::parse(&text).with_context(|| {
        format!("the state key file {shown} cannot be used: restore it, or remove it, so that a server sends everything again")
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_key_is_made_once_and_a_wrong_file_is_told_with_its_cure() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state-key");
        let missing = state_keys(&file, false).unwrap_err().to_string();
        assert!(missing.contains("does not exist") && missing.contains("openssl rand"), "{missing}");
        let made = format!("{:?}", state_keys(&file, true).unwrap());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        for is_created in [true, false] {
            assert_eq!(format!("{:?}", state_keys(&file, is_created).unwrap()), made);
        }
        private_file::replace(&file, b"a-word-of-this-file\n").unwrap();
        let wrong = format!("{:#}", state_keys(&file, true).unwrap_err());
        assert!(wrong.contains("restore it") && wrong.contains("line 1"), "{wrong}");
        assert!(!wrong.contains("a-word"), "{wrong}");
    }
}
