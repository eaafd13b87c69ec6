//! The secrets that all servers of a database share: the authority, and the key that signs tokens.
//!
//! Invariants: a start replaces no secret that the database has. The file of a secret, in which an earlier version kept it, is
//! removed by the first start that finds the same secret in the database, and not by the one that has put it there: a failover may
//! still lose that.

use crate::auth::token_key::{self, TokenKey};
use anyhow::{Context as _, bail};
use jiff::Timestamp;
use std::{fs, path::Path, sync::Arc};
use tracing::{info, warn};
use wicketgate_authority::{Ca, CaMaterial};
use wicketgate_store::{Installation, SharedSecret, SharedSecretName, Store};
use wicketgate_system::{if_exists, private_file};
use zeroize::Zeroizing;

pub(crate) struct SharedSecrets {
    pub(crate) ca: Arc<Ca>,
    pub(crate) tokens: Arc<TokenKey>,
}

impl SharedSecrets {
    /// Those of the database. A first start makes them, and the first start of this version takes them from their files.
    ///
    /// # Errors
    /// The database and the data directory do not belong together, or a secret cannot be used.
    pub(crate) async fn load(store: &Store, data_dir: &Path, has_served: bool) -> anyhow::Result<Self> {
        let ca = authority(store, data_dir, has_served).await?;
        let tokens = tokens(store, data_dir).await?;
        Ok(Self { ca: Arc::new(ca), tokens: Arc::new(tokens) })
    }
}

/// Gives the database another authority: the one that an earlier version has kept in the data directory, if that is another one than
/// the database's, and otherwise a new one. Every agent must then enrol again. No server uses the database. Returns the
/// fingerprints of the authority before, if there was one, and of the new one.
///
/// # Errors
/// The database or the data directory cannot be written.
pub async fn replace_authority(store: &Store, data_dir: &Path) -> anyhow::Result<(Option<String>, String)> {
    let (dir, now) = (data_dir.join(Ca::DIRECTORY), Timestamp::now());
    let before = store.installation().await?.authority;
    // What is damaged there is no authority; what the database has is the one to be replaced.
    let other = Ca::load(&dir).ok().flatten().filter(|own| Some(own.fingerprint().to_string()) != before);
    let ca = other.map_or_else(|| Ca::generate(now), Ok)?;
    let fingerprint = ca.fingerprint().to_string();
    store.replace_authority(&kept(&ca), &fingerprint, now).await?;
    remember(&dir, &ca)?;
    remove(&dir.join(Ca::KEY_FILE));
    Ok((before, fingerprint))
}

/// Agents know their authority, and an authority its agents' keys by the database alone.
async fn authority(store: &Store, data_dir: &Path, has_served: bool) -> anyhow::Result<Ca> {
    let (dir, now) = (data_dir.join(Ca::DIRECTORY), Timestamp::now());
    let installation = store.installation().await?;
    refuse_another(&installation, data_dir)?;
    if installation.authority.is_none() && has_served && store.is_empty().await? {
        bail!(
            "the database is empty, and the authority in {0} has served another: restore that one (`wicketgate restore`), or \
             name it with --database. To begin with an empty one on purpose, run `wicketgate down`, and move {0} and \
             {1}/gateway-id away; every agent must then enrol again",
            dir.display(),
            data_dir.display()
        );
    }
    let was_kept = store.shared_secret(SharedSecretName::Ca).await?.is_some();
    if !was_kept {
        let first = first_authority(&dir, installation.authority.as_deref(), now)?;
        store.keep_authority(&kept(&first), &first.fingerprint().to_string(), now).await?;
    }
    let row =
        store.shared_secret(SharedSecretName::Ca).await?.context("the database has kept no authority")?;
    let certificate = row.certificate.context("the authority in the database has no certificate")?;
    let ca = Ca::from_material(&CaMaterial { key: row.key, certificate })?;
    // Another server may have been first.
    refuse_another(&store.installation().await?, data_dir)?;
    remember(&dir, &ca)?;
    let is_same = |own: &Ca| own.material().key == ca.material().key;
    if was_kept && Ca::load(&dir).ok().flatten().as_ref().is_some_and(is_same) {
        remove(&dir.join(Ca::KEY_FILE));
    }
    Ok(ca)
}

/// The authority of a database that has no key of it. `known` is the one that it belongs to.
fn first_authority(dir: &Path, known: Option<&str>, now: Timestamp) -> anyhow::Result<Ca> {
    match (Ca::load(dir)?, known) {
        (Some(own), _) => Ok(own),
        (None, None) => Ok(Ca::generate(now)?),
        (None, Some(known)) => bail!(
            "the key of the authority {known}, which the database belongs to, is neither in the database nor in {}: restore \
             that directory, or go on with a new authority (`wicketgate restore --in-place --new-authority`); every agent \
             must then enrol again",
            dir.display()
        ),
    }
}

/// Refuses a database of another authority than the data directory's.
fn refuse_another(installation: &Installation, data_dir: &Path) -> anyhow::Result<()> {
    let dir = data_dir.join(Ca::DIRECTORY);
    let Some((known, own)) = installation.authority.as_ref().zip(Ca::remembered(&dir)?) else {
        return Ok(());
    };
    let (own, dir) = (own.to_string(), dir.display());
    if *known != own {
        bail!(
            "the database belongs to the authority {known}, and {dir} has the authority {own}: restore the directory `ca` that \
             belongs to the database. To go on with another authority, run `wicketgate restore --in-place --new-authority`; \
             every agent must then enrol again"
        );
    }
    Ok(())
}

fn kept(ca: &Ca) -> SharedSecret {
    let CaMaterial { key, certificate } = ca.material();
    SharedSecret { key, certificate: Some(certificate) }
}

/// Writes nothing if the certificate is there already: a full disk stops no restart.
fn remember(dir: &Path, ca: &Ca) -> anyhow::Result<()> {
    if matches!(Ca::remembered(dir), Ok(Some(known)) if known == ca.fingerprint()) {
        return Ok(());
    }
    let (file, certificate) = (dir.join(Ca::CERTIFICATE_FILE), ca.material().certificate);
    private_file::private_dir(dir)?;
    private_file::replace(&file, certificate.as_bytes())
        .with_context(|| format!("cannot write {}", file.display()))
}

async fn tokens(store: &Store, data_dir: &Path) -> anyhow::Result<TokenKey> {
    let (file, name) = (data_dir.join(token_key::FILE), SharedSecretName::TokenKey);
    let shown = file.display();
    let in_file =
        if_exists(fs::read(&file).map(Zeroizing::new)).with_context(|| format!("cannot read {shown}"))?;
    let was_kept = store.shared_secret(name).await?.is_some();
    if !was_kept {
        let key = match &in_file {
            Some(der) => {
                TokenKey::from_der(der).with_context(|| {
                    format!("{shown} contains no key: remove the file, and the next start creates a new one")
                })?;
                der.clone()
            }
            None => TokenKey::generate()?,
        };
        store.keep_shared_secret(name, &SharedSecret { key, certificate: None }, Timestamp::now()).await?;
    }
    let row = store.shared_secret(name).await?.context("the database has kept no key for tokens")?;
    let key = TokenKey::from_der(&row.key).context("the key for tokens in the database cannot be used")?;
    if was_kept && in_file.is_some_and(|own| own == row.key) {
        remove(&file);
    }
    Ok(key)
}

/// Removes the file of a secret that the database has.
fn remove(file: &Path) {
    let shown = file.display();
    match if_exists(fs::remove_file(file)) {
        Ok(None) => {}
        Ok(Some(())) => info!(file = %shown, "the database has this key, sealed: its file is removed"),
        Err(error) => warn!(file = %shown, %error, "the database has this key, sealed: remove its file"),
    }
}
