//! The file of the journal: a line with its format, its owner and an id, and sealed records.
//!
//! The first lines are the whole state at the time when the file was written, in parts; each later one is what was appended at one time.
//! Invariants: a line opens in its own file, for its owner, and at its own number only. A last line that is not complete, or is damaged, was
//! being appended when the host crashed, and is left out.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use uuid::Uuid;
use wicketgate_seal::{KeyId, Place, SecretKeys};
use wicketgate_system::private_file;
use zeroize::Zeroizing;

use super::kept::{JournalRecord, KeptDesired};

/// Of the first line; its number is raised with the format.
const FORMAT: &str = "wicketgate desired state 2";
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
    #[error("it is of another gateway, {0}")]
    Another(String),
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
    /// The gateway and its authority, without white space.
    owner: String,
    keys: SecretKeys,
    /// Of what is on the disk.
    id: Uuid,
    lines: u64,
    /// Bytes of the whole state, and of what was appended to it.
    whole: u64,
    appended: u64,
    /// The next change has to write it whole.
    pub(super) is_stale: bool,
}

impl JournalFile {
    pub(super) fn new(path: PathBuf, owner: String, keys: SecretKeys) -> Self {
        Self { path, owner, keys, id: Uuid::nil(), lines: 0, whole: 0, appended: 0, is_stale: true }
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
        let of = first.text().and_then(|text| text.strip_prefix(FORMAT)?.trim().split_once(' '));
        let of = of.and_then(|(owner, id)| Some((owner, id.parse().ok()?)));
        let Some((owner, id)) = of.filter(|_| first.is_complete()) else {
            return Err(UnusableJournal::Format);
        };
        if owner != self.owner {
            return Err(UnusableJournal::Another(owner.to_owned()));
        }
        let (mut kept, mut is_whole) = (KeptDesired::default(), false);
        (self.id, self.lines, self.whole, self.appended) = (id, 0, first.bytes(), 0);
        loop {
            let line = Line::next(&mut lines).map_err(UnusableJournal::Read)?;
            let mut is_last = || lines.fill_buf().is_ok_and(<[u8]>::is_empty);
            let records = match self.open(&line) {
                _ if !line.is_complete() => Err(line.bytes() > 0),
                Err(UnusableJournal::Damaged(_)) if is_whole && is_last() => Err(true),
                opened => Ok(opened?),
            };
            let Ok(records) = records.map_err(|is_torn| self.is_stale = is_torn) else { break };
            let bytes = if is_whole { &mut self.appended } else { &mut self.whole };
            *bytes += line.bytes();
            self.lines += 1;
            for record in records {
                is_whole = record.is_whole;
                kept.apply(record.era, &record.delta, record.doubted);
            }
        }
        if is_whole { Ok(Some(kept)) } else { Err(UnusableJournal::Short) }
    }

    fn open(&self, line: &Line) -> Result<Vec<JournalRecord>, UnusableJournal> {
        let damaged = || UnusableJournal::Damaged(self.lines + 2);
        let sealed = line.text().ok_or_else(damaged)?;
        let used = KeyId::of(sealed).ok_or_else(damaged)?;
        if !self.keys.ids().any(|known| *known == used) {
            let known: Vec<_> = self.keys.ids().map(ToString::to_string).collect();
            return Err(UnusableJournal::Key { used, known: known.join(", ") });
        }
        let clear = self.keys.open(place(&self.row(self.id, self.lines)), sealed).ok_or_else(damaged)?;
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
        let line = self.seal(self.id, self.lines, records)?;
        private_file::append(&self.path, &line)?;
        self.lines += 1;
        self.appended += line.len() as u64;
        Ok(())
    }

    fn replace(&mut self, state: &KeptDesired) -> io::Result<()> {
        let id = Uuid::now_v7();
        let mut file = private_file::prepare(&self.path)?;
        let mut writer = BufWriter::new(file.file());
        let first = format!("{FORMAT} {} {id}\n", self.owner);
        writer.write_all(first.as_bytes())?;
        let (mut lines, mut bytes) = (0, first.len() as u64);
        for record in state.records() {
            let line = self.seal(id, lines, &[record])?;
            writer.write_all(&line)?;
            (lines, bytes) = (lines + 1, bytes + line.len() as u64);
        }
        writer.flush()?;
        drop(writer);
        file.finish()?;
        (self.id, self.lines, self.whole, self.appended) = (id, lines, bytes, 0);
        Ok(())
    }

    fn seal(&self, id: Uuid, number: u64, records: &[JournalRecord]) -> io::Result<Vec<u8>> {
        let clear = Zeroizing::new(serde_json::to_string(records)?);
        let sealed = self.keys.seal(place(&self.row(id, number)), &clear).map_err(io::Error::other)?;
        let mut line = sealed.into_bytes();
        line.push(b'\n');
        Ok(line)
    }

    fn row(&self, id: Uuid, number: u64) -> String {
        format!("{}/{id}/{number}", self.owner)
    }
}

fn place(row: &str) -> Place<'_> {
    Place { table: "desired_journal", row, column: "record" }
}

/// A line with its end, or what is there instead.
struct Line(Vec<u8>);

impl Line {
    fn next(from: &mut impl BufRead) -> io::Result<Self> {
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
