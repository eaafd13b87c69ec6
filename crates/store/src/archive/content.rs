//! The content of a file of rows, a backup or an export: how it is written and read.
//!
//! A line of JSON in clear says what the file is ([`BackupHeader`]); what follows is sealed and authenticated with it. Inside are
//! lines of JSON: files, tables with their rows, and an end. The rows are those of one moment. Both databases have the same lines.

use super::{
    checksum::TableSum,
    sealed_stream::{Opener, Sealer},
    tables::{self, Loader, TABLES, TableHead, line},
};
use crate::{Result, SecretKeyFile, StoreError, database::Database};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, Connection as _, Executor as _};
use std::{
    fmt,
    io::{self, BufRead as _, BufReader, BufWriter, Read, Write},
};
use wicketgate_seal::SecretKeys;
use zeroize::Zeroizing;

/// The first line has some hundred bytes.
const LONGEST_HEADER: usize = 4096;
/// A version, or the id of a key.
const LONGEST_WORD: usize = 100;

/// What a file of rows is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Backup,
    Export,
}

impl Purpose {
    const fn format(self) -> &'static str {
        match self {
            Self::Backup => "wicketgate backup 1",
            Self::Export => "wicketgate export 1",
        }
    }

    /// Why a file with this header, or with none, is not one of this purpose.
    fn refuse(self, header: Option<&BackupHeader>) -> StoreError {
        let is = |purpose: Self| header.is_some_and(|header| header.format == purpose.format());
        let why = match self {
            Self::Backup if is(Self::Export) => {
                "the file is an export of a database, not a backup: load it with `wicketgate db import`"
            }
            Self::Backup => "the file is no backup of this program",
            Self::Export if is(Self::Backup) => {
                "the file is a backup, not an export of a database: load it with `wicketgate restore`"
            }
            Self::Export => "the file is no export of `wicketgate db export`",
        };
        StoreError::Open(why.to_owned())
    }
}

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
    pub(super) schema: i64,
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
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) rows: u64,
    /// Those of an export.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sums: Vec<TableSum>,
}

/// What is backed up or exported.
#[derive(Debug)]
pub struct BackupSource<'a> {
    /// As for [`Store::open`](crate::Store::open). It must exist.
    pub place: &'a str,
    pub keys: &'a SecretKeyFile,
    pub files: Vec<BackupFile>,
    /// Of this program.
    pub version: &'a str,
    pub now: Timestamp,
}

/// Writes a file. `told` is called with each table.
///
/// # Errors
/// The database has another schema than this version's, or the file cannot be written: what was written has no end then.
pub(super) async fn write(
    purpose: Purpose,
    source: BackupSource<'_>,
    to: impl Write,
    mut told: impl FnMut(&TableSum),
) -> Result<End> {
    let keys = source.keys.read()?.ok_or_else(|| {
        StoreError::Open(format!(
            "the secret key file {} does not exist: name it with --secret-key-file",
            source.keys.path().display()
        ))
    })?;
    let mut db = Database::connect_one(source.place).await?;
    db.execute(tables::snapshot(source.place)).await?;
    let schema = schema(&mut db).await?;
    let (key, salt, cipher) = keys.new_stream()?;
    let (version, created_at) = (source.version.to_owned(), source.now);
    let header = BackupHeader { format: purpose.format().to_owned(), created_at, version, schema, key, salt };
    let mut to = BufWriter::new(to);
    let header = serde_json::to_string(&header).map_err(|error| StoreError::Archive(error.into()))?;
    writeln!(to, "{header}").map_err(StoreError::Archive)?;
    let mut to = Sealer::new(to, cipher, header.as_bytes());
    for file in &source.files {
        line(&mut to, file)?;
    }
    let mut end = End { rows: 0, sums: Vec::new() };
    for table in TABLES {
        let sum = tables::write(&mut db, table, &mut to).await?;
        told(&sum);
        end.rows += sum.rows;
        end.sums.extend(Some(sum).filter(|_| purpose == Purpose::Export));
    }
    line(&mut to, &end)?;
    to.finish().and_then(|mut to| to.flush()).map_err(StoreError::Archive)?;
    db.close().await?;
    Ok(end)
}

/// The schema of a database, which has to be that of this version.
pub(super) async fn schema(db: &mut AnyConnection) -> Result<i64> {
    let (schema,): (i64,) = sqlx::query_as("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(db).await?;
    if schema != Database::newest_schema() {
        return Err(StoreError::Open(format!(
            "the database has the schema {schema}, and this version reads {}: use the version that serves it, or start \
             `up` of this version first",
            Database::newest_schema()
        )));
    }
    Ok(schema)
}

/// A file that is being read.
pub(super) struct Content<R> {
    lines: io::Lines<BufReader<Opener<R>>>,
    /// The line behind the files.
    next: Option<String>,
}

/// The header of a file, with its line.
fn header(purpose: Purpose, from: &mut impl Read) -> Result<(BackupHeader, Vec<u8>)> {
    let (mut text, mut byte) = (Vec::new(), [0]);
    // Byte by byte, since nothing behind it may be taken.
    while text.len() < LONGEST_HEADER
        && from.read(&mut byte).map_err(StoreError::Archive)? > 0
        && byte != *b"\n"
    {
        text.extend(byte);
    }
    let header: Option<BackupHeader> = serde_json::from_slice(&text).ok();
    let is_right = header.as_ref().is_some_and(|header| header.format == purpose.format());
    let Some(header) = header.as_ref().filter(|_| is_right) else {
        return Err(purpose.refuse(header.as_ref()));
    };
    // They are shown before the file is known to be one of ours.
    let is_plain =
        |text: &str| text.len() <= LONGEST_WORD && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_plain(&header.version) || !is_plain(&header.key) {
        return Err(purpose.refuse(None));
    }
    Ok((header.clone(), text))
}

impl<R: Read> Content<R> {
    /// Reads the header, which `check` may refuse, and the files.
    ///
    /// # Errors
    /// It is another file, it was sealed under another key, or it was changed.
    pub(super) fn open(
        purpose: Purpose,
        mut from: R,
        keys: &SecretKeys,
        check: impl FnOnce(&BackupHeader) -> Result<()>,
    ) -> Result<(BackupHeader, Vec<BackupFile>, Self)> {
        let (header, text) = header(purpose, &mut from)?;
        check(&header)?;
        let cipher = keys.stream(&header.key, &header.salt).ok_or_else(|| {
            StoreError::Open(format!(
                "it is sealed under the secret key {}, which the secret key file does not have: name the file that has it \
                 with --secret-key-file",
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
        Ok((header, files, Self { lines, next }))
    }

    /// Reads to the end, without the rows.
    ///
    /// # Errors
    /// Also if the file has no end.
    pub(super) fn skip(&mut self) -> Result<End> {
        let mut last = self.next.take();
        for line in self.lines.by_ref() {
            last = Some(line.map_err(StoreError::Archive)?);
        }
        last.and_then(|text| serde_json::from_str(&text).ok()).ok_or_else(damaged)
    }

    /// Replaces the rows of all tables, in the transaction of `db`. `told` is called with each table and its number of rows.
    ///
    /// # Errors
    /// Also if the file has no end: then the transaction has to be rolled back.
    pub(super) async fn load(
        &mut self,
        db: &mut AnyConnection,
        mut told: impl FnMut(&str, u64),
    ) -> Result<End> {
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
                    return if is_whole { Ok(end) } else { Err(damaged()) };
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
