//! The token with all scopes. The database has its SHA-256, which decides; the token itself is in a file of the data directory of the
//! server that has made it, mode 0600.

use super::trusted::AdminToken;
use crate::background::{BackgroundTask, Outcome};
use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::{fs, path::Path, sync::Arc, time::Duration};
use tracing::warn;
use uuid::Uuid;
use wicketgate_store::{Store, WriteContext};
use wicketgate_system::{Latest, if_exists, private_file};

/// Its name in the data directory.
pub const FILE: &str = "admin.token";
/// Lets scanners of repositories and logs recognize it.
const PREFIX: &str = "wga_";
/// Characters. A shorter token that was written by hand could be guessed.
const SHORTEST: usize = 20;

/// A new token.
///
/// # Errors
/// The system has no random bytes.
pub fn generate() -> anyhow::Result<SecretString> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).context("no random bytes for the admin token")?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)).into())
}

/// What the database keeps of a token.
pub fn sha256(token: &SecretString) -> [u8; 32] {
    Sha256::digest(token.expose_secret()).into()
}

/// The content of its file.
pub fn line(token: &SecretString) -> String {
    format!("{}\n", token.expose_secret())
}

/// Whose file is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decides {
    /// The server is the only one: its file may have been edited.
    File,
    /// Other servers have other files, or none.
    Database,
}

/// The admin token of the database, and the token itself if it was created just now, to be shown once.
///
/// # Errors
/// The file cannot be read or created, or contains no token; or the database does not answer.
pub(crate) async fn load(
    store: &Store,
    data_dir: &Path,
    decides: Decides,
) -> anyhow::Result<(AdminToken, Option<SecretString>)> {
    let now = Timestamp::now();
    let (path, in_file) = (data_dir.join(FILE), read(data_dir)?);
    let known = store.admin_token().await?;
    let created = match (&in_file, known, decides) {
        (Some(token), known, Decides::File) if known != Some(sha256(token)) => {
            let why = "the file in the data directory of the only server has another one";
            store.set_admin_token(sha256(token), why, &own(now)).await?;
            if known.is_some() {
                warn!(file = %path.display(), "the admin token is that of the file now, and the one before is refused");
            }
            None
        }
        (Some(token), None, Decides::Database) => {
            store.keep_admin_token(sha256(token), now).await?;
            None
        }
        (None, None, _) | (None, Some(_), Decides::File) => Some(create(store, &path, decides).await?),
        (Some(_), _, _) | (None, Some(_), Decides::Database) => None,
    };
    let known = store.admin_token().await?.context("the database has kept no admin token")?;
    let is_known = |token: &SecretString| sha256(token) == known;
    if in_file.as_ref().is_some_and(|token| !is_known(token)) {
        warn!(
            file = %path.display(),
            "the file has another admin token than the database, which is not accepted: remove it, or make a new token with \
             `wicketgate secrets admin-token`"
        );
    }
    let created = match created {
        // Another server was first.
        Some(token) if !is_known(&token) => {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            None
        }
        created => created,
    };
    Ok((AdminToken::of(known), created))
}

/// Of what the server does by itself.
fn own(now: Timestamp) -> WriteContext {
    WriteContext::new("server", now, Uuid::now_v7)
}

async fn create(store: &Store, path: &Path, decides: Decides) -> anyhow::Result<SecretString> {
    let (token, now) = (generate()?, Timestamp::now());
    private_file::create(path, line(&token).as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    match decides {
        Decides::File => {
            store.set_admin_token(sha256(&token), "the file had been removed", &own(now)).await?;
        }
        Decides::Database => store.keep_admin_token(sha256(&token), now).await?,
    }
    Ok(token)
}

/// The token in the data directory's file, if there is one.
fn read(data_dir: &Path) -> anyhow::Result<Option<SecretString>> {
    let path = data_dir.join(FILE);
    let shown = path.display();
    let text = if_exists(fs::read_to_string(&path)).with_context(|| format!("cannot read {shown}"))?;
    let Some(text) = text else { return Ok(None) };
    let token = text.trim();
    if token.len() < SHORTEST || !token.bytes().all(|b| b.is_ascii_graphic()) {
        bail!("{shown} contains no token: remove the file, and the next start creates a new one");
    }
    Ok(Some(token.to_owned().into()))
}

/// Takes in an admin token that was replaced while the server runs.
#[derive(Debug)]
pub(crate) struct AdminTokenRefresh {
    pub(crate) store: Store,
    pub(crate) admin: Arc<Latest<AdminToken>>,
}

impl BackgroundTask for AdminTokenRefresh {
    const NAME: &'static str = "admin-token";
    /// For so long, a token that was replaced is still accepted.
    const PERIOD: Duration = Duration::from_secs(5);
    /// One statement.
    const WITHIN: Duration = Duration::from_secs(10);

    async fn activate(&mut self, _: Timestamp) -> anyhow::Result<Outcome> {
        if let Some(sha256) = self.store.admin_token().await? {
            let token = AdminToken::of(sha256);
            if token.fingerprint() != self.admin.get().fingerprint() {
                warn!(
                    target: "auth",
                    "the admin token was replaced: the one before is refused, and console sessions that were opened with it end"
                );
                self.admin.set(token);
            }
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;
    use wicketgate_store::SecretKeyFile;

    async fn store(dir: &TempDir) -> Store {
        let keys = SecretKeyFile::created_at(dir.path().join("secret-key"));
        Store::open(dir.path().join("wicketgate.db").to_str().unwrap(), &keys).await.unwrap()
    }

    #[tokio::test]
    async fn the_token_is_created_once_and_its_file_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        for decides in [Decides::File, Decides::Database] {
            let data = tempfile::tempdir().unwrap();
            let (made, created) = load(&store, data.path(), decides).await.unwrap();
            let (again, created_again) = load(&store, data.path(), decides).await.unwrap();
            assert_eq!((created.is_some(), created_again.is_some()), (decides == Decides::File, false));
            assert_eq!(made.fingerprint(), again.fingerprint());
            let path = data.path().join(FILE);
            let Some(created) = created else {
                assert!(!path.exists(), "another server has made the token");
                continue;
            };
            assert!(made.is(created.expose_secret()));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            fs::write(&path, "\n").unwrap();
            assert!(load(&store, data.path(), decides).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_file_that_was_edited_decides_for_the_only_server() {
        let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = store(&dir).await;
        let (first, _) = load(&store, data.path(), Decides::File).await.unwrap();
        let own = "a-token-of-twenty-letters";
        fs::write(data.path().join(FILE), own).unwrap();
        let (shared, _) = load(&store, data.path(), Decides::Database).await.unwrap();
        assert_eq!(shared.fingerprint(), first.fingerprint(), "other servers would refuse it");
        let (edited, _) = load(&store, data.path(), Decides::File).await.unwrap();
        assert!(edited.is(own));
    }

    #[tokio::test]
    async fn a_token_that_was_replaced_is_taken_in() {
        let (dir, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = store(&dir).await;
        let (token, _) = load(&store, data.path(), Decides::Database).await.unwrap();
        let admin = Arc::new(Latest::new(token));
        let new = generate().unwrap();
        store.set_admin_token(sha256(&new), "for a test", &own(Timestamp::now())).await.unwrap();
        let mut refresh = AdminTokenRefresh { store, admin: Arc::clone(&admin) };
        refresh.activate(Timestamp::now()).await.unwrap();
        assert!(admin.get().is(new.expose_secret()));
    }
}
