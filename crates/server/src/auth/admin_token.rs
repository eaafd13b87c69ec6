//! The admin token's file: made at the first start, 0600, in the data directory.

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::SecretString;
use std::{fs, io, path::Path};
use wicketgate_system::private_file;

/// Its name in the data directory.
pub const FILE: &str = "admin.token";
/// So that a scanner of repositories and logs can tell it.
const PREFIX: &str = "wga_";
/// A token of fewer letters could be guessed, if somebody wrote one by hand.
const SHORTEST: usize = 20;

/// The token, and whether it was made just now.
///
/// # Errors
/// When the file can't be read or made, or holds no token.
pub fn load_or_create(data_dir: &Path) -> anyhow::Result<(SecretString, bool)> {
    let path = data_dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let token = text.trim();
            if token.len() < SHORTEST || !token.bytes().all(|b| b.is_ascii_graphic()) {
                bail!("{} holds no token: remove it, and the next start makes a new one", path.display());
            }
            Ok((token.to_owned().into(), false))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let mut random = [0; 32];
            getrandom::fill(&mut random).context("no random bytes for the admin token")?;
            let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
            private_file::create(&path, format!("{token}\n").as_bytes())
                .with_context(|| format!("can't write {}", path.display()))?;
            Ok((token.into(), true))
        }
        Err(e) => Err(e).with_context(|| format!("can't read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let (made, created) = load_or_create(dir.path()).unwrap();
        let (again, created_again) = load_or_create(dir.path()).unwrap();
        assert_eq!((created, created_again), (true, false));
        assert_eq!(made.expose_secret(), again.expose_secret());
        let path = dir.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "\n").unwrap();
        assert!(load_or_create(dir.path()).is_err());
    }
}
