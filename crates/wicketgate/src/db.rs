//! `wicketgate db export | import`: moves the database of an installation between SQLite and PostgreSQL, while `up` is stopped.
//!
//! Invariant: an import that fails before its commit changes neither the data directory nor a row of the database. One whose end was
//! not seen after that is completed by the same command.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use uuid::Uuid;
use wicketgate_authority::Ca;
use wicketgate_server::Server;
use wicketgate_store::{
    Action, BackupSource, Import, ImportTarget, LOCAL_OPERATOR, TableSum, WriteContext, export,
    record_of_operator,
};
use wicketgate_system::{own_directory::OwnDirectory, private_file};

use crate::{
    backup::{is_of_up, say, to_stdout, where_to},
    database,
    restore::STOPPED,
    up::{CA, Up},
    version::VERSION,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Db {
    /// Write all rows to a file, sealed under the secret key, and print the number of rows and the SHA-256 of each table. Stop
    /// `up` first: what it writes later is not in the file.
    Export(Box<DbExport>),
    /// Load an export into an empty database, which the data directory uses from then on. Nothing is loaded unless every table
    /// has the rows and the SHA-256 of the export.
    Import(Box<DbImport>),
}

#[derive(Debug, Args)]
pub(crate) struct DbExport {
    /// The file to write, which is replaced once the export is whole; `-` writes to the standard output.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    up: Up,
}

#[derive(Debug, Args)]
pub(crate) struct DbImport {
    /// A file that `wicketgate db export` has written. --database names the database to load it into; without it, that is a
    /// new SQLite file in the data directory.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    up: Up,
}

impl Db {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Export(export) => export.run().await,
            Self::Import(import) => import.run().await,
        }
    }
}

/// The data directory of an installation, which `up` does not use meanwhile.
fn stopped(up: &Up) -> anyhow::Result<OwnDirectory> {
    // Before the directory is locked, which would create it.
    is_of_up(&up.data_dir)?;
    OwnDirectory::open(&up.data_dir, &STOPPED)
}

impl DbExport {
    async fn run(self) -> anyhow::Result<()> {
        let url = self.up.database.url()?;
        let data_dir = stopped(&self.up)?;
        let dir = data_dir.path();
        database::check(dir, url.as_ref())?;
        let place = database::place(dir, url.as_ref());
        let keys = self.up.database.secret_keys(dir)?;
        let (now, version) = (Timestamp::now(), VERSION);
        let source = BackupSource { place: &place, keys: &keys, files: Vec::new(), version, now };
        let shown = self.file.display();
        // Before the rows are read, since the new database has the record, too.
        let context = WriteContext::new(LOCAL_OPERATOR, now, Uuid::now_v7);
        let message = format!("an export of all rows to {}", where_to(&self.file));
        record_of_operator(&place, Action::Backup, &message, &context).await?;
        if self.file == Path::new("-") {
            let told = |sum: &TableSum| say(&Line(sum).to_string());
            to_stdout("an export", dir, async |file| Ok(export(source, file, told).await?)).await?;
            return Ok(());
        }
        let cannot = || format!("cannot write {shown}");
        let mut file = private_file::prepare(&self.file).with_context(cannot)?;
        let rows =
            export(source, file.file(), print).await.with_context(|| format!("cannot export to {shown}"))?;
        file.finish().with_context(cannot)?;
        say(&format!(
            "{shown}: {rows} rows, sealed under the secret key. Next: `wicketgate db import {shown}` with the --database to \
             move to. Do not start `up` before that: what it writes is not in the file"
        ));
        Ok(())
    }
}

impl DbImport {
    async fn run(self) -> anyhow::Result<()> {
        let url = self.up.database.url()?;
        let data_dir = stopped(&self.up)?;
        let dir = data_dir.path();
        let shown = self.file.display();
        let file = File::open(&self.file).with_context(|| format!("cannot read {shown}"))?;
        let keys = self.up.database.secret_keys(dir)?;
        let keys = keys.read()?.with_context(|| {
            format!(
                "the secret key file {} does not exist, under whose key the export is sealed: name it with --secret-key-file, or \
                 copy it there, mode 0600",
                keys.path().display()
            )
        })?;
        let cannot = || format!("cannot import {shown}");
        let import = Import::open(file, &keys).with_context(cannot)?;
        let authority =
            Ca::remembered(&dir.join(CA))?.context("the data directory belongs to no authority")?;
        let authority = authority.to_string();
        let place = database::place(dir, url.as_ref());
        let exported = if url.is_some() { database::own_sqlite(dir)? } else { None };
        let is_new = url.is_none() && !dir.join(Server::SQLITE).exists();
        let exported_at = import.header.created_at;
        let target = ImportTarget { place: &place, authority: &authority, exported: exported.as_deref() };
        let loaded = import.load(target).await;
        if loaded.is_err() && is_new {
            let files = ["", "-wal", "-shm"].map(|suffix| format!("{}{suffix}", Server::SQLITE));
            files.iter().for_each(|file| drop(fs::remove_file(dir.join(file))));
        }
        let tables = loaded.with_context(cannot)?;
        let rows: u64 = tables.iter().map(|table| table.rows).sum();
        tables.iter().for_each(print);
        database::keep(dir, url.as_ref())
            .context("all rows are imported, and the data directory could not be told of its new database")?;
        say(&format!(
            "imported {rows} rows of {exported_at}: every table has the rows and the SHA-256 of the export"
        ));
        say(&format!(
            "next: `wicketgate up --data-dir {}` with this database, {}, and the other settings of before",
            dir.display(),
            database::name(url.as_ref())
        ));
        if let Some(left) = exported {
            say(&format!(
                "{left} is left as it was, and no longer used: delete it, with its -wal and -shm, when `up` works with the \
                 new database"
            ));
        }
        Ok(())
    }
}

/// A table in the output.
struct Line<'a>(&'a TableSum);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TableSum { table, rows, sha256 } = self.0;
        write!(f, "{table:<18} {rows:>9} {sha256}")
    }
}

fn print(sum: &TableSum) {
    // Without a reader, the exit status says that all is well.
    let _ = writeln!(io::stdout(), "{}", Line(sum));
}
