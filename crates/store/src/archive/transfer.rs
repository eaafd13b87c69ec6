//! The move of an installation's database to another kind of database: all rows as they are, without what follows a restore.
//!
//! Invariants: no server writes while rows are exported or imported. An import commits only if every table in the target has the
//! rows and the checksum of the export, and if the exported database has not been changed since.

use super::{
    checksum::TableSum,
    content::{self, BackupHeader, BackupSource, Content, Purpose},
    tables::{self, TABLES},
};
use crate::{
    Result, StoreError,
    database::Database,
    database_lock::{DatabaseLock, LockMode},
};
use sqlx::{AnyConnection, Connection as _, Executor as _};
use std::{
    fmt,
    io::{Read, Write},
};
use wicketgate_seal::SecretKeys;

/// Writes all rows of a database that no server uses. The data directory of a SQLite database has to be locked by the caller.
/// `told` is called with each table; returns the number of rows.
///
/// # Errors
/// Also if a server uses the database: rows that it wrote afterwards would be lost.
pub async fn export(source: BackupSource<'_>, to: impl Write, told: impl FnMut(&TableSum)) -> Result<u64> {
    let mut lock = DatabaseLock::take(source.place, LockMode::Exclusive).await?;
    let end = content::write(Purpose::Export, source, to, told).await?;
    if let Some(mut lock) = lock.take() {
        lock.was_held().await?;
        lock.release().await;
    }
    Ok(end.rows)
}

/// Where an export is loaded.
#[derive(Debug, Clone, Copy)]
pub struct ImportTarget<'a> {
    /// As for [`Store::open`](crate::Store::open).
    pub place: &'a str,
    /// The fingerprint of the data directory's authority, to which the rows have to belong.
    pub authority: &'a str,
    /// The database from which the rows are thought to be, if it is there.
    pub exported: Option<&'a str>,
}

/// An export that is being read.
pub struct Import<R> {
    pub header: BackupHeader,
    content: Content<R>,
}

impl<R> fmt::Debug for Import<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Import").field("header", &self.header).finish_non_exhaustive()
    }
}

impl<R: Read> Import<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// It is no export, it was made for another schema or sealed under another key, or it was changed.
    pub fn open(from: R, keys: &SecretKeys) -> Result<Self> {
        let is_of_this_schema = |header: &BackupHeader| match header.schema == Database::newest_schema() {
            true => Ok(()),
            false => Err(StoreError::Open(format!(
                "it was made by version {} with the schema {}, and this version has the schema {}: export and import with \
                 the same version",
                header.version,
                header.schema,
                Database::newest_schema()
            ))),
        };
        let (header, _, content) = Content::open(Purpose::Export, from, keys, is_of_this_schema)?;
        Ok(Self { header, content })
    }

    /// Loads the rows into an empty database, compares every table with the export, and commits. Returns the tables. A database
    /// that has just these rows is left as it is: an import into it was committed, and its end was not seen.
    ///
    /// # Errors
    /// The database has other rows, another server uses it, or a table differs: then no row was loaded.
    pub async fn load(mut self, target: ImportTarget<'_>) -> Result<Vec<TableSum>> {
        let database = Database::connect(target.place).await?;
        let loaded = async {
            let mut lock = DatabaseLock::take(target.place, LockMode::Exclusive).await?;
            let mut db = database.connection().await?;
            // Before the migrations, which would change a database that another version serves.
            let is_used = tables::is_used(&mut db).await?;
            if !is_used {
                drop(db);
                database.migrate().await?;
                db = database.connection().await?;
            }
            db.execute(database.begin_statement()).await?;
            let loaded = match is_used {
                true => self.compare_rows(&mut db, target).await,
                false => self.load_rows(&mut db, target).await,
            };
            let held = match (&loaded, &mut lock) {
                (Ok(_), Some(lock)) => lock.was_held().await,
                _ => Ok(()),
            };
            let loaded = tables::end_transaction(&mut db, held.and(loaded)).await;
            if let Some(mut lock) = lock {
                lock.release().await;
            }
            loaded
        }
        .await;
        database.close().await;
        loaded
    }

    /// Whether a database has just the rows of the export.
    async fn compare_rows(
        &mut self,
        db: &mut AnyConnection,
        target: ImportTarget<'_>,
    ) -> Result<Vec<TableSum>> {
        let end = self.content.skip()?;
        if content::schema(db).await.is_err() || compared(db, &end.sums).await?.is_some() {
            return Err(StoreError::Open(
                "the database to import into is not empty, and has other rows than the export: name an empty one with \
                 --database, or for SQLite, move the wicketgate.db in the data directory away"
                    .to_owned(),
            ));
        }
        is_of(db, target.authority).await?;
        is_unchanged(target.exported, &end.sums).await?;
        Ok(end.sums)
    }

    async fn load_rows(&mut self, db: &mut AnyConnection, target: ImportTarget<'_>) -> Result<Vec<TableSum>> {
        let end = self.content.load(db, |_, _| {}).await?;
        is_of(db, target.authority).await?;
        is_unchanged(target.exported, &end.sums).await?;
        match compared(db, &end.sums).await? {
            None => Ok(end.sums),
            Some((exported, loaded)) => Err(StoreError::Open(format!(
                "the table {} has {} rows with the SHA-256 {} in the export, and {} rows with {} in the database: nothing was \
                 imported. Try another database, and report it",
                exported.table, exported.rows, exported.sha256, loaded.rows, loaded.sha256
            ))),
        }
    }
}

/// Refuses rows of another installation: the gateway would remove all tunnels, and agents would be unknown.
async fn is_of(db: &mut AnyConnection, authority: &str) -> Result<()> {
    let (of_rows,): (Option<String>,) =
        sqlx::query_as("SELECT authority FROM installation").fetch_one(db).await?;
    match of_rows {
        Some(of_rows) if of_rows != authority => Err(StoreError::Open(format!(
            "it belongs to the authority {of_rows}, and the data directory has the authority {authority}: name the data \
             directory that it was exported from with --data-dir"
        ))),
        _ => Ok(()),
    }
}

/// Refuses an export of a database that has other rows by now: they would be lost.
async fn is_unchanged(exported: Option<&str>, sums: &[TableSum]) -> Result<()> {
    let Some(exported) = exported else { return Ok(()) };
    let mut from = Database::connect_one(exported).await?;
    let changed = compared(&mut from, sums).await?;
    from.close().await?;
    match changed {
        None => Ok(()),
        Some((then, now)) => Err(StoreError::Open(format!(
            "the database {exported} was changed after the export, table {} had {} rows and has {}: export it again, and \
             import into an empty database",
            then.table, then.rows, now.rows
        ))),
    }
}

/// Reads all tables of a database, and returns the first that differs, as it should be and as it is.
async fn compared(db: &mut AnyConnection, sums: &[TableSum]) -> Result<Option<(TableSum, TableSum)>> {
    for table in TABLES {
        let is = tables::write(db, table, &mut std::io::sink()).await?;
        let wanted = sums.iter().find(|sum| sum.table == *table);
        let wanted =
            wanted.ok_or_else(|| StoreError::Open(format!("the export has no checksum of {table}")))?;
        if is != *wanted {
            return Ok(Some((wanted.clone(), is)));
        }
    }
    Ok(None)
}
