//! The admin token's file in the data directory: created at the first start, mode 0600.

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::SecretString;
use std::{fs, io, path::Path};
use wicketgate_system::private_file;

/// Its name in the data directory.
pub const FILE: &str = "admin.token";
/// Lets scanners of repositories and logs recognize it.
const PREFIX: &str = "wga_";
/// Characters. A shorter token that was written by hand could be guessed.
const SHORTEST: usize = 20;

/// The token, and whether it was created just now.
///
/// # Errors
/// The file cannot be read or created, or contains no token.
pub fn load_or_create(data_dir: &Path) -> anyhow::Result<(SecretString, bool)> {
    let path = data_dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let token = text.trim();
            if token.len() < SHORTEST || !token.bytes().all(|b| b.is_ascii_graphic()) {
                bail!(
                    "{} contains no token: remove the file, and the next start creates a new one",
                    path.display()
                );
            }
            Ok((token.to_owned().into(), false))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let mut random = [0; 32];
            getrandom::fill(&mut random).context("no random bytes for the admin token")?;
            let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
            private_file::create(&path, format!("{token}\n").as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
            Ok((token.into(), true))
        }
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_token_is_created_once_and_its_file_is_private() {
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
