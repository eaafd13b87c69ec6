//! Backups: one file with all rows of a database and the private files that belong to them, sealed under the secret key.
//!
//! A line of JSON in clear says what it is ([`BackupHeader`]); what follows is sealed and authenticated with it. Inside are lines
//! of JSON: files, tables with their rows, and an end. The rows are those of one moment, and the server goes on meanwhile. Both
//! databases have the same lines: a backup of one can be restored to the other.
//!
//! Invariant: a restore changes nothing but an empty database, and leaves it empty unless all of the backup was read.

mod sealed_stream;
mod tables;

use crate::{
    Result, SecretKeyFile, SecretKeys, Store, StoreError, database::Database, database_lock::DatabaseLock,
};
use jiff::Timestamp;
use sealed_stream::{Opener, Sealer};
use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, Connection as _, Executor as _};
use std::{
    fmt,
    io::{self, BufRead as _, BufReader, BufWriter, Read, Write},
};
use tables::{Loader, TABLES, TableHead, line};
use wicketgate_model::Era;
use zeroize::Zeroizing;

const FORMAT: &str = "wicketgate backup 1";
/// The first line has some hundred bytes.
const LONGEST_HEADER: usize = 4096;

/// What a backup says of itself to everyone who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupHeader {
    format: String,
    /// The moment of its rows.
    pub created_at: Timestamp,
    /// Of the program that made it.
    pub version: String,
    /// The version of the schema.
    schema: i64,
    /// The id of the secret key that it is sealed under.
    pub key: String,
    /// Makes the key of this file from it, in hexadecimal.
    salt: String,
}

/// A private file beside the database.
#[derive(Clone, Serialize, Deserialize)]
pub struct BackupFile {
    /// Relative to the data directory.
    pub file: String,
    /// In hexadecimal.
    #[serde(with = "hex_text")]
    pub content: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for BackupFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupFile({:?})", self.file)
    }
}

/// What ends the lines.
#[derive(Serialize, Deserialize)]
struct End {
    rows: u64,
}

/// What is backed up.
#[derive(Debug)]
pub struct BackupSource<'a> {
    /// As for [`Store::open`]. It must exist.
    pub place: &'a str,
    pub keys: &'a SecretKeyFile,
    pub files: Vec<BackupFile>,
    /// Of this program.
    pub version: &'a str,
    pub now: Timestamp,
}

/// Writes a backup, and returns how many rows it has. `told` is called with each table and its number of rows.
///
/// # Errors
/// The database has another schema than this version's, or the backup cannot be written: what was written has no end then.
pub async fn back_up(
    source: BackupSource<'_>,
    to: impl Write,
    mut told: impl FnMut(&str, u64),
) -> Result<u64> {
    let keys = source
        .keys
        .read()?
        .ok_or_else(|| StoreError::Open("the secret key file does not exist".to_owned()))?;
    let mut db = Database::connect_one(source.place).await?;
    db.execute(tables::snapshot(source.place)).await?;
    let (schema,): (i64,) =
        sqlx::query_as("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(&mut db).await?;
    if schema != Database::newest_schema() {
        return Err(StoreError::Open(format!(
            "the database has the schema {schema}, and this version makes backups of {}: use the version that serves it",
            Database::newest_schema()
        )));
    }
    let (key, salt, cipher) = keys.new_stream()?;
    let (version, created_at) = (source.version.to_owned(), source.now);
    let header = BackupHeader { format: FORMAT.to_owned(), created_at, version, schema, key, salt };
    let mut to = BufWriter::new(to);
    let header = serde_json::to_string(&header).map_err(|error| StoreError::Archive(error.into()))?;
    writeln!(to, "{header}").map_err(StoreError::Archive)?;
    let mut to = Sealer::new(to, cipher, header.as_bytes());
    for file in &source.files {
        line(&mut to, file)?;
    }
    let mut rows = 0;
    for table in TABLES {
        let count = tables::write(&mut db, table, &mut to).await?;
        told(table, count);
        rows += count;
    }
    line(&mut to, &End { rows })?;
    to.finish().and_then(|mut to| to.flush()).map_err(StoreError::Archive)?;
    db.close().await?;
    Ok(rows)
}

/// A backup that is being read.
pub struct Backup<R> {
    pub header: BackupHeader,
    /// Those that were backed up.
    pub files: Vec<BackupFile>,
    lines: io::Lines<BufReader<Opener<R>>>,
    /// The line behind the files.
    next: Option<String>,
}

impl<R> fmt::Debug for Backup<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup")
            .field("header", &self.header)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

/// The header of a backup, with its line.
///
/// # Errors
/// The file is no backup, or one of a newer version.
fn header(from: &mut impl Read) -> Result<(BackupHeader, Vec<u8>)> {
    let (mut text, mut byte) = (Vec::new(), [0]);
    // Byte by byte, since nothing behind it may be taken.
    while text.len() < LONGEST_HEADER
        && from.read(&mut byte).map_err(StoreError::Archive)? > 0
        && byte != *b"\n"
    {
        text.extend(byte);
    }
    let header: Option<BackupHeader> = serde_json::from_slice(&text).ok();
    let header = header.filter(|header| header.format == FORMAT);
    let header =
        header.ok_or_else(|| StoreError::Open("the file is no backup of this program".to_owned()))?;
    if header.schema > Database::newest_schema() {
        return Err(StoreError::Open(format!(
            "the backup was made by the newer version {}: restore it with that one",
            header.version
        )));
    }
    Ok((header, text))
}

impl<R: Read> Backup<R> {
    /// Reads the header and the files.
    ///
    /// # Errors
    /// It is no backup, it was sealed under another key, or it was changed.
    pub fn open(mut from: R, keys: &SecretKeys) -> Result<Self> {
        let (header, text) = header(&mut from)?;
        let cipher = keys.stream(&header.key, &header.salt).ok_or_else(|| {
            StoreError::Open(format!(
                "the backup is sealed under the secret key {}, which the secret key file does not have: name the file \
                 that has it with --secret-key-file",
                header.key
            ))
        })?;
        let mut lines = BufReader::new(Opener::new(from, cipher, &text)).lines();
        let mut files = Vec::new();
        let next = loop {
            let Some(text) = lines.next().transpose().map_err(StoreError::Archive)? else { break None };
            match serde_json::from_str(&text) {
                Ok(file) => files.push(file),
                Err(_) => break Some(text),
            }
        };
        Ok(Self { header, files, lines, next })
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
        (now, mut told): (Timestamp, impl FnMut(&str, u64)),
    ) -> Result<(Store, u64)> {
        let database = Database::connect(place).await?;
        let lock = DatabaseLock::take(place).await?;
        database.migrate_to(self.header.schema).await?;
        let mut db = database.connection().await?;
        let (is_used,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM frontdoor").fetch_one(&mut *db).await?;
        if is_used > 0 {
            return Err(StoreError::Open("the database is not empty: restore to a new one".to_owned()));
        }
        db.execute(database.begin_statement()).await?;
        let rows = match self.load_rows(&mut db, &mut told).await {
            Ok(rows) => follow_restore(&mut db, now).await.map(|()| rows),
            Err(error) => Err(error),
        };
        // A connection that is closed rolls back.
        let rows = match rows {
            Ok(rows) => db.execute("COMMIT").await.map(|_| rows).map_err(StoreError::from),
            Err(error) => db.execute("ROLLBACK").await.map_err(StoreError::from).and(Err(error)),
        }?;
        drop(db);
        let store = Store::migrated(database, keys).await?;
        drop(lock);
        Ok((store, rows))
    }

    async fn load_rows(&mut self, db: &mut AnyConnection, told: &mut impl FnMut(&str, u64)) -> Result<u64> {
        tables::clear(db).await?;
        let mut table: Option<(TableHead, Loader, u64)> = None;
        let mut rows = 0;
        loop {
            let text = match self.next.take() {
                Some(text) => text,
                None => self.lines.next().ok_or_else(damaged)?.map_err(StoreError::Archive)?,
            };
            if text.starts_with('[') {
                let (_, loader, count) = table.as_mut().ok_or_else(damaged)?;
                loader.take(db, serde_json::from_str(&text).map_err(|_| damaged())?).await?;
                *count += 1;
                continue;
            }
            if let Some((head, mut loader, count)) = table.take() {
                loader.finish(db).await?;
                told(&head.table, count);
                rows += count;
            }
            match serde_json::from_str::<TableHead>(&text) {
                Ok(head) => {
                    let loader = Loader::new(db, &head).await?;
                    table = Some((head, loader, 0));
                }
                Err(_) => {
                    let end: End = serde_json::from_str(&text).map_err(|_| damaged())?;
                    let is_whole = end.rows == rows && self.lines.next().is_none();
                    return if is_whole { Ok(rows) } else { Err(damaged()) };
                }
            }
        }
    }
}

fn damaged() -> StoreError {
    StoreError::Archive(io::Error::new(
        io::ErrorKind::InvalidData,
        "it has no end, or lines that this version does not know",
    ))
}

/// What follows a restore, in its transaction: a new era, and the end of all sessions of browsers, which may have been signed out
/// since.
async fn follow_restore(db: &mut AnyConnection, now: Timestamp) -> Result<()> {
    for statement in ["DELETE FROM console_session", "DELETE FROM site_session"] {
        sqlx::query(statement).execute(&mut *db).await?;
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

mod hex_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(bytes: &Zeroizing<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&Zeroizing::new(hex::encode(bytes.as_slice())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<Vec<u8>>, D::Error> {
        let text = Zeroizing::new(String::deserialize(from)?);
        hex::decode(text.as_str()).map(Zeroizing::new).map_err(D::Error::custom)
    }
}
