//! The file of the journal: a line with its format and an id, and a sealed record a line.
//!
//! The first records are the whole state at the time when the file was written, in parts; each later one is a delta that was appended.
//! Invariants: a record opens in its own file and at its own number only. A line is complete with its end: what follows the last
//! end was being appended when the host crashed, and is left out.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use uuid::Uuid;
use wicketgate_seal::{KeyId, Place, SecretKeys};
use wicketgate_system::private_file;
use zeroize::Zeroizing;

use super::kept::{JournalRecord, KeptDesired};

/// Of the first line; its number is raised with the format.
const FORMAT: &str = "wicketgate desired state 1";
/// The file is written whole once what was appended, in bytes, is more than the rest and this.
const STALE: u64 = 1 << 20;

/// What to do to the file.
#[derive(Debug)]
pub(super) enum JournalChange {
    Append(Vec<JournalRecord>),
    Replace(Box<KeptDesired>),
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnusableJournal {
    #[error("it cannot be read: {0}")]
    Read(io::Error),
    #[error("it is not of this version")]
    Format,
    #[error("it is sealed under key {used}, and the state key file has {known}")]
    Key { used: KeyId, known: String },
    #[error("line {0} is damaged")]
    Damaged(u64),
    #[error("its end is missing")]
    Short,
}

/// See the module.
#[derive(Debug)]
pub(super) struct JournalFile {
    path: PathBuf,
    keys: SecretKeys,
    /// Of what is on the disk.
    id: Uuid,
    records: u64,
    /// Bytes of the whole state, and of what was appended to it.
    whole: u64,
    appended: u64,
    /// The next change has to write it whole.
    pub(super) is_stale: bool,
}

impl JournalFile {
    pub(super) fn new(path: PathBuf, keys: SecretKeys) -> Self {
        Self { path, keys, id: Uuid::nil(), records: 0, whole: 0, appended: 0, is_stale: true }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the file has; `None`: there is none. After an error, the next change replaces it.
    pub(super) fn read(&mut self) -> Result<Option<KeptDesired>, UnusableJournal> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(UnusableJournal::Read(error)),
        };
        let mut lines = BufReader::new(file);
        let first = Line::next(&mut lines).map_err(UnusableJournal::Read)?;
        let id = first.text().and_then(|text| text.strip_prefix(FORMAT)?.trim().parse().ok());
        let Some(id) = id.filter(|_| first.is_complete()) else { return Err(UnusableJournal::Format) };
        let (mut kept, mut is_whole) = (KeptDesired::default(), false);
        (self.id, self.records, self.whole, self.appended) = (id, 0, first.bytes(), 0);
        loop {
            let line = Line::next(&mut lines).map_err(UnusableJournal::Read)?;
            if !line.is_complete() {
                self.is_stale = line.bytes() > 0;
                break;
            }
            let record = self.open(&line)?;
            let bytes = if is_whole { &mut self.appended } else { &mut self.whole };
            *bytes += line.bytes();
            self.records += 1;
            is_whole = record.is_whole;
            kept.apply(record.era, &record.delta);
        }
        if is_whole { Ok(Some(kept)) } else { Err(UnusableJournal::Short) }
    }

    fn open(&self, line: &Line) -> Result<JournalRecord, UnusableJournal> {
        let damaged = || UnusableJournal::Damaged(self.records + 2);
        let sealed = line.text().ok_or_else(damaged)?;
        let used = KeyId::of(sealed).ok_or_else(damaged)?;
        if !self.keys.ids().any(|known| *known == used) {
            let known: Vec<_> = self.keys.ids().map(ToString::to_string).collect();
            return Err(UnusableJournal::Key { used, known: known.join(", ") });
        }
        let clear = self.keys.open(place(&row(self.id, self.records)), sealed).ok_or_else(damaged)?;
        serde_json::from_str(&clear).map_err(|_| damaged())
    }

    /// Carries out the change, and waits until the disk has it. After an error, only a replacement is accepted.
    pub(super) fn carry_out(&mut self, change: &JournalChange) -> io::Result<()> {
        let done = match change {
            JournalChange::Append(_) if self.is_stale => Err(io::Error::other("the file has to be replaced")),
            JournalChange::Append(records) => self.append(records),
            JournalChange::Replace(state) => self.replace(state),
        };
        self.is_stale = done.is_err() || self.appended > self.whole.max(STALE);
        done
    }

    fn append(&mut self, records: &[JournalRecord]) -> io::Result<()> {
        let mut lines = Vec::new();
        for record in records {
            lines.extend(self.seal(self.id, self.records, record)?);
            self.records += 1;
        }
        private_file::append(&self.path, &lines)?;
        self.appended += lines.len() as u64;
        Ok(())
    }

    fn replace(&mut self, state: &KeptDesired) -> io::Result<()> {
        let id = Uuid::now_v7();
        let mut file = private_file::prepare(&self.path)?;
        let mut writer = BufWriter::new(file.file());
        let first = format!("{FORMAT} {id}\n");
        writer.write_all(first.as_bytes())?;
        let (mut records, mut bytes) = (0, first.len() as u64);
        for record in state.records() {
            let line = self.seal(id, records, &record)?;
            writer.write_all(&line)?;
            (records, bytes) = (records + 1, bytes + line.len() as u64);
        }
        writer.flush()?;
        drop(writer);
        file.finish()?;
        (self.id, self.records, self.whole, self.appended) = (id, records, bytes, 0);
        Ok(())
    }

    fn seal(&self, id: Uuid, number: u64, record: &JournalRecord) -> io::Result<Vec<u8>> {
        let clear = Zeroizing::new(serde_json::to_string(record)?);
        let sealed = self.keys.seal(place(&row(id, number)), &clear).map_err(io::Error::other)?;
        let mut line = sealed.into_bytes();
        line.push(b'\n');
        Ok(line)
    }
}

fn row(id: Uuid, number: u64) -> String {
    format!("{id}/{number}")
}

fn place(row: &str) -> Place<'_> {
    Place { table: "desired_journal", row, column: "record" }
}

/// A line with its end, or what is there instead.
struct Line(Vec<u8>);

impl Line {
    fn next(from: &mut impl io::BufRead) -> io::Result<Self> {
        let mut line = Vec::new();
        from.read_until(b'\n', &mut line)?;
        Ok(Self(line))
    }

    fn is_complete(&self) -> bool {
        self.0.ends_with(b"\n")
    }

    fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok().map(str::trim_end)
    }

    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }
}
