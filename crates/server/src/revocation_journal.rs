//! Keeps a record of revocations apart from the database: a backup that is restored does not know those of after it, and
//! everything that they took away would be there again.
//!
//! Invariant: each revocation is in the file within seconds, also one of before the last stop, and once.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::task::spawn_blocking;
use wicketgate_model::ExecutionId;
use wicketgate_store::{Revocation, Store};
use wicketgate_system::{if_exists, private_file};

use crate::background::{BackgroundTask, Outcome};

/// Its name in the data directory.
pub const FILE: &str = "revocations";
/// A write takes longer than this only if its answer was lost: what it has recorded becomes visible no later.
const OVERLAP: SignedDuration = SignedDuration::from_mins(2);
/// Bytes of the file, above which the older half is dropped: some 50,000 revocations.
const LARGEST: usize = 10 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct RevocationJournal {
    store: Store,
    file: PathBuf,
    /// Those in the file that may be read again; `None`: the file was not read yet.
    kept: Option<BTreeSet<(Timestamp, ExecutionId)>>,
}

impl RevocationJournal {
    pub(crate) fn new(store: Store, data_dir: &Path) -> Self {
        Self { store, file: data_dir.join(FILE), kept: None }
    }

    async fn kept(&self) -> anyhow::Result<BTreeSet<(Timestamp, ExecutionId)>> {
        let file = self.file.clone();
        let text = spawn_blocking(move || open(&file)).await??;
        let lines = text.lines().filter_map(|line| line.parse::<Revocation>().ok());
        let mut kept: BTreeSet<_> = lines.map(|line| (line.created_at, line.id)).collect();
        forget(&mut kept);
        Ok(kept)
    }
}

/// The file, made if it is not there, shortened if it is large, and without a line that a crash has cut.
fn open(file: &Path) -> io::Result<String> {
    let text = if_exists(fs::read_to_string(file))?;
    let mut kept = text.as_deref().unwrap_or_default();
    kept = &kept[..kept.rfind('\n').map_or(0, |end| end + 1)];
    if kept.len() > LARGEST {
        let half = kept.as_bytes().iter().skip(kept.len() / 2).position(|byte| *byte == b'\n');
        kept = &kept[half.map_or(0, |at| kept.len() / 2 + at + 1)..];
    }
    if text.as_deref() != Some(kept) {
        private_file::replace(file, kept.as_bytes())?;
    }
    Ok(kept.to_owned())
}

/// Those that no reading has again.
fn forget(kept: &mut BTreeSet<(Timestamp, ExecutionId)>) {
    if let Some((newest, _)) = kept.last() {
        let first = newest.saturating_sub(OVERLAP + OVERLAP).unwrap_or(Timestamp::MIN);
        kept.retain(|(at, _)| *at >= first);
    }
}

impl BackgroundTask for RevocationJournal {
    const NAME: &'static str = "revocations";
    /// What is revoked after the last run of a host that is lost is not told.
    const PERIOD: Duration = Duration::from_secs(2);
    /// One statement and one sync of the disk.
    const WITHIN: Duration = Duration::from_secs(10);

    async fn activate(&mut self, _: Timestamp) -> anyhow::Result<Outcome> {
        // Read again if this run fails or is cut: what it has appended counts.
        let mut kept = match self.kept.take() {
            Some(kept) => kept,
            None => self.kept().await?,
        };
        let since = kept.last().and_then(|(newest, _)| newest.saturating_sub(OVERLAP).ok());
        let mut from = Revocation::first_at(since.unwrap_or(Timestamp::UNIX_EPOCH));
        loop {
            let read = self.store.revocations(from).await?;
            let new: Vec<_> = read.iter().filter(|one| !kept.contains(&(one.created_at, one.id))).collect();
            let Some(last) = read.last().filter(|last| last.id > from) else { break };
            from = last.id;
            if new.is_empty() {
                continue;
            }
            let (file, lines) =
                (self.file.clone(), new.iter().map(|one| format!("{one}\n")).collect::<String>());
            spawn_blocking(move || private_file::append(&file, lines.as_bytes())).await??;
            kept.extend(new.iter().map(|one| (one.created_at, one.id)));
        }
        forget(&mut kept);
        self.kept = Some(kept);
        Ok(Outcome::Done)
    }
}
