//! Backups: one file with all rows of a database and the private files that belong to them, sealed under the secret key. The
//! server goes on while one is made, and a backup of one database can be restored to the other.
//!
//! Invariant: a restore changes nothing but an empty database, and leaves it empty unless all of the backup was read.

mod checksum;
mod content;
mod sealed_stream;
mod tables;
mod transfer;

use crate::{
    Result, SecretKeyFile, Store, StoreError,
    database::Database,
    database_lock::{DatabaseLock, LockMode},
};
use content::{Content, Purpose};
use jiff::Timestamp;
use sqlx::{AnyConnection, Executor as _};
use std::sync::Arc;
use std::{
    fmt,
    io::{Read, Write},
};
use tokio::sync::Mutex;
use wicketgate_model::Era;
use wicketgate_seal::SecretKeys;

pub use checksum::TableSum;
pub use content::{BackupFile, BackupHeader, BackupSource};
pub use transfer::{Import, ImportTarget, export};

/// Writes a backup, and returns how many rows it has. `told` is called with each table and its number of rows.
///
/// # Errors
/// The database has another schema than this version's, or the backup cannot be written: what was written has no end then.
pub async fn back_up(
    source: BackupSource<'_>,
    to: impl Write,
    mut told: impl FnMut(&str, u64),
) -> Result<u64> {
    Ok(content::write(Purpose::Backup, source, to, |sum| told(&sum.table, sum.rows)).await?.rows)
}

/// A backup that is being read.
pub struct Backup<R> {
    pub header: BackupHeader,
    /// Those that were backed up.
    pub files: Vec<BackupFile>,
    content: Content<R>,
}

impl<R> fmt::Debug for Backup<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup")
            .field("header", &self.header)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl<R: Read> Backup<R> {
    /// Reads the header and the files.
    ///
    /// # Errors
    /// It is no backup, it was sealed under another key, or it was changed.
    pub fn open(from: R, keys: &SecretKeys) -> Result<Self> {
        let is_known = |header: &BackupHeader| match header.schema > Database::newest_schema() {
            true => Err(StoreError::Open(format!(
                "the backup was made by the newer version {}: restore it with that one",
                header.version
            ))),
            false => Ok(()),
        };
        let (header, files, content) = Content::open(Purpose::Backup, from, keys, is_known)?;
        Ok(Self { header, files, content })
    }

    /// Loads the rows into the empty database at `place`, brings it to this version's schema, and begins an era. Returns it,
    /// with the number of rows.
    ///
    /// # Errors
    /// The database is not empty, or the backup cannot be read to its end: then nothing was loaded.
    pub async fn load(
        mut self,
        place: &str,
        keys: &SecretKeyFile,
        (now, told): (Timestamp, impl FnMut(&str, u64)),
    ) -> Result<(Store, u64)> {
        let database = Database::connect(place).await?;
        let lock = DatabaseLock::take(place, LockMode::Exclusive).await?;
        database.migrate_to(self.header.schema).await?;
        let mut db = database.connection().await?;
        if tables::is_used(&mut db).await? {
            return Err(StoreError::Open("the database is not empty: restore to a new one".to_owned()));
        }
        db.execute(database.begin_statement()).await?;
        let rows = match self.content.load(&mut db, told).await {
            Ok(end) => follow_restore(&mut db, now).await.map(|()| end.rows),
            Err(error) => Err(error),
        };
        let rows = tables::end_transaction(&mut db, rows).await?;
        drop(db);
        let mut store = Store::migrated(database, keys).await?;
        store.held = lock.map(|lock| Arc::new(Mutex::new(lock)));
        Ok((store, rows))
    }
}

/// What follows a restore, in its transaction: a new era, and the end of what may have ended since: sessions of browsers, which may
/// have been signed out; enrolment codes, join tokens and handover links, which may have been
/// used up or revoked.
async fn follow_restore(db: &mut AnyConnection, now: Timestamp) -> Result<()> {
    for statement in ["DELETE FROM console_session", "DELETE FROM site_session"] {
        sqlx::query(statement).execute(&mut *db).await?;
    }
    // It may have been replaced since: the next start takes that of its file, or makes one.
    if tables::has(db, "admin_token").await? {
        sqlx::query("DELETE FROM admin_token").execute(&mut *db).await?;
    }
    // One that was used since the backup must not be used again. A backup of before has none.
    if tables::has(db, "join_token").await? {
        sqlx::query("UPDATE join_token SET expires_at = 0 WHERE used_by IS NULL").execute(&mut *db).await?;
    }
    for ended in [
        "UPDATE enrollment SET expires_at = $1 WHERE agent IS NULL AND expires_at > $1",
        "UPDATE handover_link SET revoked_at = $1 WHERE revoked_at IS NULL AND expires_at > $1",
    ] {
        sqlx::query(ended).bind(now.as_microsecond()).execute(&mut *db).await?;
    }
    let (era,): (i64,) = sqlx::query_as("SELECT era FROM installation").fetch_one(&mut *db).await?;
    let era = Era::new(era.try_into().unwrap_or(0)).next(now.as_second().try_into().unwrap_or(0));
    let era = i64::try_from(era.get()).unwrap_or(i64::MAX);
    sqlx::query("UPDATE installation SET era = $1").bind(era).execute(db).await?;
    Ok(())
}

impl Store {
    /// What follows a restore by other means than [`Backup::load`].
    pub async fn was_restored(&self, now: Timestamp) -> Result<()> {
        let mut tx = self.database.begin().await?;
        follow_restore(tx.db(), now).await?;
        tx.commit().await
    }
}
