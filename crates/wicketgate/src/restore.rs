//! `wicketgate restore`: makes a data directory and a database from a backup; or follows up a restore by other means.
//!
//! Invariant: nothing that is there is overwritten.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use jiff::Timestamp;
use secrecy::SecretString;
use uuid::Uuid;
use wicketgate_model::{Era, PreSharedKey};
use wicketgate_server::{REVOCATIONS_FILE, Server, replace_authority};
use wicketgate_store::{
    Action, BackupFile, DatabaseLock, ResourceType, Revocation, SecretKeyFile, Store, WriteContext,
};
use wicketgate_system::{
    if_exists,
    own_directory::{DirectoryKind, OwnDirectory},
    private_file,
};

use crate::{
    backup::{files, say, told},
    database,
    up::{CA, DATA_DIRECTORY, Up},
};

/// The data directory of an `up` that does not run.
pub(crate) const STOPPED: DirectoryKind =
    DirectoryKind { busy: "stop `up` first, or choose another with --data-dir", ..DATA_DIRECTORY };

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// A backup that `wicketgate backup` has written. The data directory and the database must be new.
    #[arg(value_name = "FILE", required_unless_present = "in_place")]
    file: Option<PathBuf>,
    /// The database was restored by other means, from a snapshot or by PostgreSQL's own: only do what has to follow.
    #[arg(long, conflicts_with = "file")]
    in_place: bool,
    /// With --in-place: give the database another authority, that of ca/ca.key in the data directory if an earlier version has
    /// left another one there, and otherwise a new one. Every agent must enrol again.
    #[arg(long, requires = "in_place")]
    new_authority: bool,
    /// The file `revocations` of the data directory that was lost, or a copy of it: what it has of after the backup is told
    /// [default: that of this data directory].
    #[arg(long, value_name = "FILE")]
    revocations: Option<PathBuf>,
    /// Revoke again what was revoked after the backup.
    #[arg(long)]
    revoke: bool,
    #[command(flatten)]
    up: Up,
}

impl Restore {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let data_dir = OwnDirectory::open(&self.up.data_dir, &STOPPED)?;
        let dir = data_dir.path();
        let (url, keys) = (self.up.database.url()?, self.up.database.secret_keys(dir)?);
        let revoked = self.revoked(dir)?;
        let now = Timestamp::now();
        // Nobody uses the database before all is done.
        let (store, _lock) = match &self.file {
            Some(file) => (restore(file, dir, url.as_ref(), &keys).await?, None),
            None => self.open(dir, url.as_ref(), &keys).await?,
        };
        if self.in_place {
            store.was_restored(now).await?;
        }
        let era = store.installation().await?.era;
        let missed = self.revoke(&store, &revoked).await?;
        self.keep(&revoked, dir)?;
        store.close().await;
        self.tell(dir, era, missed);
        ensure!(
            !self.revoke || missed == 0,
            "{missed} of what was revoked after the backup could not be revoked again"
        );
        Ok(())
    }

    /// The database that is there.
    async fn open(
        &self,
        dir: &Path,
        url: Option<&SecretString>,
        keys: &SecretKeyFile,
    ) -> anyhow::Result<(Store, Option<DatabaseLock>)> {
        ensure!(
            dir.join(CA).is_dir(),
            "{} is no data directory of `up`: name it with --data-dir",
            dir.display()
        );
        database::check(dir, url)?;
        let (store, lock) = Store::open_alone(&database::place(dir, url), keys).await?;
        if self.new_authority {
            let (before, new) = replace_authority(&store, dir).await?;
            let before = before.unwrap_or_else(|| "none".to_owned());
            say(&format!("the authority is {new} now, and was {before}: every agent has to enrol again"));
        }
        Ok((store, lock))
    }

    fn revoked(&self, dir: &Path) -> anyhow::Result<Vec<Revocation>> {
        let own = dir.join(REVOCATIONS_FILE);
        let file = self.revocations.as_ref().unwrap_or(&own);
        let shown = file.display();
        let bytes = fs::read(file);
        let bytes = if self.revocations.is_some() { bytes.map(Some) } else { if_exists(bytes) };
        let bytes = bytes.with_context(|| format!("cannot read {shown}"))?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().zip(1..).map(|(line, number)| {
            line.parse().with_context(|| format!("line {number} of {shown} is no revocation: remove it"))
        });
        lines.collect()
    }

    /// The next server goes on with the record of the lost one, and adopts no agent that was removed.
    fn keep(&self, revoked: &[Revocation], dir: &Path) -> anyhow::Result<()> {
        let own = dir.join(REVOCATIONS_FILE);
        if self.revocations.is_none() || own.exists() {
            return Ok(());
        }
        let lines: String = revoked.iter().map(|revocation| format!("{revocation}\n")).collect();
        private_file::create(&own, lines.as_bytes())
            .with_context(|| format!("cannot write {}", own.display()))
    }

    /// Tells what the database has missed, and revokes it again if it is asked for. Returns how much is left.
    async fn revoke(&self, store: &Store, revoked: &[Revocation]) -> anyhow::Result<usize> {
        let mut left = 0;
        for revocation in in_order(revoked) {
            let Revocation { created_at, action, resource_type, resource, actor, .. } = revocation;
            let what = format!("{resource_type} {resource}, by {actor} at {created_at}");
            if !store.has_missed(revocation, Timestamp::now()).await? {
                if store.has_never_known(revocation).await? {
                    say(&format!("came and was removed after the backup, do not adopt it: {what}"));
                }
                continue;
            }
            let context = WriteContext::new("restore", Timestamp::now(), Uuid::now_v7);
            let is_key = *action == Action::RotateKey;
            let done = match (self.revoke, is_key) {
                (false, _) => None,
                (true, false) => Some(store.revoke_again(revocation, &context).await),
                (true, true) => Some(store.replace_key_again(revocation, random_key()?, &context).await),
            };
            match done {
                Some(Ok(())) if is_key => say(&format!(
                    "has another new key now: {what}. Its site needs the key: \
                     `wicketgate tunnel handover NAME`, or `wicketgate tunnel rotate-key` with the one that the site has"
                )),
                Some(Ok(())) => say(&format!("deleted again: {what}")),
                Some(Err(error)) if is_key => {
                    say(&format!("its key cannot be replaced again ({error}): {what}"));
                    left += 1;
                }
                Some(Err(error)) => {
                    say(&format!("cannot be deleted again ({error}): {what}"));
                    left += 1;
                }
                None if is_key => {
                    say(&format!(
                        "has the key of before: {what}. Replace it again with `wicketgate tunnel rotate-key --cut`"
                    ));
                    left += 1;
                }
                None => {
                    say(&format!("is there again: {what}"));
                    left += 1;
                }
            }
        }
        Ok(left)
    }

    fn tell(&self, dir: &Path, era: Era, left: usize) {
        say(&format!(
            "era {era} begins: agents accept its assignments and no older ones, and sessions of browsers, handover links and \
             enrolment codes have ended"
        ));
        if left > 0 {
            say(
                "run `wicketgate restore --in-place --revoke`, with the same --revocations, to revoke it again",
            );
        }
        if self.revocations.is_none() {
            say(&format!(
                "what was revoked after a backup is told if it is in `{REVOCATIONS_FILE}` of the data directory that was lost: \
                 name a copy of it with --revocations"
            ));
        }
        say(&format!(
            "next: `wicketgate up --data-dir {}`, with the other settings of before",
            dir.display()
        ));
    }
}

fn random_key() -> anyhow::Result<PreSharedKey> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).context("no random bytes for a key")?;
    Ok(PreSharedKey::from_random(random))
}

/// What gives access first: what follows may fail because something uses it.
fn in_order(revoked: &[Revocation]) -> Vec<&Revocation> {
    let rank = |revocation: &&Revocation| match revocation.resource_type {
        ResourceType::ApiAccount => 0,
        ResourceType::Agent | ResourceType::HandoverLink | ResourceType::JoinToken => 1,
        ResourceType::Share => 2,
        ResourceType::Tunnel | ResourceType::Environment => 3,
        ResourceType::Frontdoor | ResourceType::Enrollment | ResourceType::Gateway => 4,
    };
    let mut sorted: Vec<_> = revoked.iter().collect();
    sorted.sort_by_key(rank);
    sorted
}

/// Restores to a new data directory and a new database.
async fn restore(
    file: &Path,
    dir: &Path,
    url: Option<&SecretString>,
    keys: &SecretKeyFile,
) -> anyhow::Result<Store> {
    let there = files().into_iter().chain([Server::SQLITE.to_owned()]).find(|file| dir.join(file).exists());
    if let Some(there) = there {
        bail!(
            "the data directory {} is in use, it has {there}: restore to another with --data-dir, or move its content away, but \
             for the secret key. If a restore to it was ended before its time, that is what it left",
            dir.display()
        );
    }
    let shown = file.display();
    let opened = File::open(file).with_context(|| format!("cannot read {shown}"))?;
    let secret_keys = keys.read()?.with_context(|| {
        format!(
            "the secret key file {} does not exist, under whose key the backup is sealed: copy it there, mode 0600, or name it \
             with --secret-key-file",
            keys.path().display()
        )
    })?;
    let backup = wicketgate_store::Backup::open(opened, &secret_keys)
        .with_context(|| format!("cannot restore {shown}"))?;
    let backed_up_at = backup.header.created_at;
    // Before the rows: a database with rows is not restored to again.
    let written = write(dir, &backup.files);
    let loaded = match written {
        Ok(()) => backup
            .load(&database::place(dir, url), keys, (Timestamp::now(), told))
            .await
            .map_err(anyhow::Error::from),
        Err(error) => Err(error),
    };
    let (store, rows) = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            // None of them was there before.
            let database = ["", "-wal", "-shm"].map(|suffix| format!("{}{suffix}", Server::SQLITE));
            files().iter().chain(&database).for_each(|file| drop(fs::remove_file(dir.join(file))));
            return Err(error.context(format!("cannot restore {shown}")));
        }
    };
    database::keep(dir, url)?;
    say(&format!("the next start makes a new admin token, in {}", dir.join(Server::KEPT_FILE).display()));
    say(&format!("restored {rows} rows of {backed_up_at}"));
    Ok(store)
}

/// The files, none of which is there.
fn write(dir: &Path, content: &[BackupFile]) -> anyhow::Result<()> {
    private_file::private_dir(&dir.join(CA))?;
    for BackupFile { file, content } in content {
        ensure!(files().contains(file), "the backup has a file {file:?} that this version does not know");
        // The admin token may have been replaced since, so that it is none any more: the next start makes another.
        if file == Server::KEPT_FILE {
            continue;
        }
        let path = dir.join(file);
        private_file::create(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
