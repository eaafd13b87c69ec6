//! `wicketgate backup`: writes the database and the files that belong to it to one sealed file, while `up` runs. The database is
//! told of each backup that is complete.

use std::{
    fs::{self, File},
    io::{self, IsTerminal as _, Seek as _, SeekFrom, Write},
    path::{self, Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::Timestamp;
use uuid::Uuid;
use wicketgate_authority::Ca;
use wicketgate_server::Server;
use wicketgate_store::{BackupFile, BackupSource, LOCAL_OPERATOR, LastBackup, WriteContext, back_up};
use wicketgate_system::{if_exists, private_file, program::WrongUsage};
use zeroize::Zeroizing;

use crate::{
    database::{self, GATEWAY_ID},
    up::{CA, Up},
    version::VERSION,
};

#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file to write, which is replaced once the backup is whole; `-` writes to the standard output.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    up: Up,
}

/// The files in the data directory that a backup has, relative to it. What earlier versions kept in files is among them: a
/// backup of theirs has it, and a directory of theirs is in use.
pub(crate) fn files() -> Vec<String> {
    let ca = [Ca::CERTIFICATE_FILE, Ca::KEY_FILE].map(|file| format!("{CA}/{file}"));
    let own = [Server::KEPT_FILE, Server::FORMER_FILE, GATEWAY_ID].map(str::to_owned);
    [&ca[..], &own].concat()
}

/// Refuses what is no data directory of an installation.
pub(crate) fn is_of_up(data_dir: &Path) -> anyhow::Result<()> {
    let (file, shown) = (data_dir.join(CA).join(Ca::CERTIFICATE_FILE), data_dir.display());
    match file.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => {
            bail!(WrongUsage(format!("{shown} is no data directory of `up`: name it with --data-dir")))
        }
        Err(error) => {
            bail!("cannot read the data directory {shown}: {error}: run this as its owner, root as a rule")
        }
    }
}

impl Backup {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let data_dir = &self.up.data_dir;
        is_of_up(data_dir)?;
        let url = self.up.database.url()?;
        database::check(data_dir, url.as_ref())?;
        let place = database::place(data_dir, url.as_ref());
        let now = Timestamp::now();
        let source = BackupSource {
            place: &place,
            keys: &self.up.database.secret_keys(data_dir)?,
            files: read(data_dir)?,
            version: VERSION,
            now,
        };
        let bytes = match self.file == Path::new("-") {
            true => {
                to_stdout("a backup", data_dir, async |file| Ok(back_up(source, file, told).await?)).await?
            }
            false => self.write(source).await?,
        };
        let made = LastBackup { created_at: now, bytes, version: VERSION.to_owned() };
        let context = WriteContext::new(LOCAL_OPERATOR, Timestamp::now(), Uuid::now_v7);
        if let Err(error) = made.record(&place, &where_to(&self.file), &context).await {
            say(&format!("the backup is complete, and that it was made could not be recorded: {error}"));
        }
        Ok(())
    }

    /// Returns the size of the file.
    async fn write(&self, source: BackupSource<'_>) -> anyhow::Result<u64> {
        let shown = self.file.display();
        let cannot = || format!("cannot write {shown}");
        let mut file = private_file::prepare(&self.file).with_context(cannot)?;
        let rows = back_up(source, file.file(), told).await.with_context(cannot)?;
        file.finish().with_context(cannot)?;
        let bytes = fs::metadata(&self.file).with_context(cannot)?.len();
        say(&format!(
            "{shown}: {rows} rows in {} KiB. It is sealed under the secret key, without which it cannot be restored: keep a \
             copy of that elsewhere",
            bytes.div_ceil(1024)
        ));
        Ok(bytes)
    }
}

/// Where a copy is written to, as its execution says it.
pub(crate) fn where_to(file: &Path) -> String {
    match file == Path::new("-") {
        true => "the standard output".to_owned(),
        false => path::absolute(file).unwrap_or_else(|_| file.to_owned()).display().to_string(),
    }
}

/// Writes to the standard output what `write` writes to a file, and returns how much. `what` names it.
pub(crate) async fn to_stdout<T>(
    what: &str,
    data_dir: &Path,
    write: impl AsyncFnOnce(&mut File) -> anyhow::Result<T>,
) -> anyhow::Result<u64> {
    let out = io::stdout();
    anyhow::ensure!(
        !out.is_terminal(),
        WrongUsage(format!("{what} is not text: redirect the standard output, or name a file"))
    );
    // First to a file without a name: a reader that hangs would hold the database's log, which grows meanwhile.
    let mut whole =
        tempfile::tempfile_in(data_dir).with_context(|| format!("cannot write to {}", data_dir.display()))?;
    write(&mut whole).await?;
    whole.seek(SeekFrom::Start(0))?;
    let mut out = out.lock();
    let bytes = io::copy(&mut whole, &mut out)?;
    out.flush()?;
    Ok(bytes)
}

/// Not every first start has come as far as to make all of them.
fn read(data_dir: &Path) -> anyhow::Result<Vec<BackupFile>> {
    let read = |file: String| {
        let path = data_dir.join(&file);
        let content =
            if_exists(fs::read(&path)).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(content.map(|content| BackupFile { file, content: Zeroizing::new(content) }))
    };
    files().into_iter().filter_map(|file| read(file).transpose()).collect()
}

/// Progress: small tables are not worth a line.
pub(crate) fn told(table: &str, rows: u64) {
    const MANY: u64 = 1000;
    if rows >= MANY {
        say(&format!("{table}: {rows} rows"));
    }
}

pub(crate) fn say(line: &str) {
    // Without a reader, the exit status says it.
    let _ = writeln!(io::stderr(), "{line}");
}
