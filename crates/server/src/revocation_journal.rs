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
use wicketgate_store::{Action, Revocation, Store};
use wicketgate_system::{if_exists, private_file};

use crate::background::{BackgroundTask, Outcome};

/// Its name in the data directory.
pub const FILE: &str = "revocations";
/// A write takes longer than this only if its answer was lost: what it has recorded becomes visible no later.
const OVERLAP: SignedDuration = SignedDuration::from_mins(2);
/// Bytes of the file, above which older lines are dropped: some 50,000 revocations.
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
        forget(&mut kept, Timestamp::now());
        Ok(kept)
    }
}

/// The file, made if it is not there, shortened if it is large, and without a line that a crash has cut.
fn open(file: &Path) -> io::Result<String> {
    let bytes = if_exists(fs::read(file))?;
    let whole = bytes.as_deref().unwrap_or_default();
    let end = whole.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    // A cut character is in the last line, which is dropped.
    let mut kept = String::from_utf8_lossy(&whole[..end]).into_owned();
    if kept.len() > LARGEST {
        kept = shortened(&kept);
    }
    if bytes.as_deref() != Some(kept.as_bytes()) {
        private_file::replace(file, kept.as_bytes())?;
    }
    Ok(kept)
}

/// Without the older half of its shares and tunnels, of which one customer can make and delete any number; and if that is not
/// enough, without the older half of the rest.
fn shortened(text: &str) -> String {
    let is_of_many = |line: &&str| line.contains(" ipsec-share shr-") || line.contains(" ipsec-tunnel tnl-");
    let lines: Vec<_> = text.lines().collect();
    let (old, new) = lines.split_at(lines.len() / 2);
    let kept = |old: Vec<&str>| old.iter().chain(new).map(|line| format!("{line}\n")).collect::<String>();
    let without_many = kept(old.iter().filter(|line| !is_of_many(line)).copied().collect());
    if without_many.len() <= LARGEST { without_many } else { kept(Vec::new()) }
}

/// Appends, and shortens the file before it is too large.
fn append(file: &Path, lines: &str) -> io::Result<()> {
    if fs::metadata(file)?.len() > LARGEST as u64 {
        open(file)?;
    }
    private_file::append(file, lines.as_bytes())
}

/// Whether the record has the removal of one of these resources.
pub(crate) async fn has_removed(file: &Path, resources: &[String]) -> anyhow::Result<bool> {
    let file = file.to_owned();
    let bytes = spawn_blocking(move || if_exists(fs::read(file))).await??.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines().filter_map(|line| line.parse::<Revocation>().ok());
    Ok(lines.any(|line| line.action == Action::Delete && resources.contains(&line.resource)))
}

/// Those that no reading has again.
fn forget(kept: &mut BTreeSet<(Timestamp, ExecutionId)>, now: Timestamp) {
    if let Some((newest, _)) = kept.last() {
        let first = (*newest).min(now).saturating_sub(OVERLAP + OVERLAP).unwrap_or(Timestamp::MIN);
        kept.retain(|(at, _)| *at >= first);
    }
}

impl BackgroundTask for RevocationJournal {
    const NAME: &'static str = "revocations";
    /// What is revoked after the last run of a host that is lost is not told.
    const PERIOD: Duration = Duration::from_secs(2);
    /// One statement and one sync of the disk.
    const WITHIN: Duration = Duration::from_secs(10);

    async fn activate(&mut self, now: Timestamp) -> anyhow::Result<Outcome> {
        // Read again if this run fails or is cut: what it has appended counts.
        let mut kept = match self.kept.take() {
            Some(kept) => kept,
            None => self.kept().await?,
        };
        // The clock may have been ahead when the newest was recorded.
        let newest = kept.last().map(|(newest, _)| (*newest).min(now));
        let since = newest.and_then(|newest| newest.saturating_sub(OVERLAP).ok());
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
            spawn_blocking(move || append(&file, &lines)).await??;
            kept.extend(new.iter().map(|one| (one.created_at, one.id)));
        }
        forget(&mut kept, now);
        self.kept = Some(kept);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use wicketgate_store::{FrontdoorSpec, SecretKeyFile, WriteContext};

    #[tokio::test]
    async fn a_revocation_is_recorded_also_after_one_of_a_clock_that_was_ahead() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("db").display().to_string();
        let store = Store::open(&place, &SecretKeyFile::created_at(dir.path().join("key"))).await.unwrap();
        let file = dir.path().join(FILE);
        let ahead = Timestamp::now() + SignedDuration::from_hours(24);
        let (id, resource) = (Uuid::now_v7(), format!("agt-{}", Uuid::nil().simple()));
        let line = format!("{ahead} {} DELETE agent {resource} - admin\n", Revocation::first_at(ahead));
        fs::write(&file, &line).unwrap();
        // Of before the correction of the clock: the file is read by a new process, and then kept in memory.
        let mut journal = RevocationJournal::new(store.clone(), dir.path());
        let context = || WriteContext::new("admin", Timestamp::now(), Uuid::now_v7);
        for _ in 0..2 {
            let spec = FrontdoorSpec {
                organization: id.to_string(),
                default_namespace: "default".parse().unwrap(),
                ipsec_shares_enabled: true,
                quotas: Default::default(),
            };
            let frontdoor = store.create_frontdoor(&spec, &context()).await.unwrap().id;
            store.delete_frontdoor(frontdoor, &context()).await.unwrap();
            journal.activate(Timestamp::now()).await.unwrap();
            journal.activate(Timestamp::now()).await.unwrap();
            let text = fs::read_to_string(&file).unwrap();
            let lines = text.lines().filter(|line| line.contains(&frontdoor.to_string()));
            assert_eq!(lines.count(), 1, "{text}");
        }
        assert!(fs::read_to_string(&file).unwrap().starts_with(&line));
        store.close().await;
    }

    #[test]
    fn a_large_file_keeps_what_few_can_make() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let line = |n: usize, of: &str| {
            format!(
                "2026-01-01T00:00:00Z exe-{n:032} DELETE {of} 01a22a0c-ad7d-7403-a613-2cdccd8ac446 somebody"
            )
        };
        let first = line(0, "agent agt-1");
        let many = (1..LARGEST / 100).map(|n| line(n, "ipsec-share shr-1"));
        let text: String = [first.clone()].into_iter().chain(many).map(|line| line + "\n").collect();
        assert!(text.len() > LARGEST);
        fs::write(&file, [text.as_bytes(), b"2026 cut in \xc3"].concat()).unwrap();
        append(&file, &(line(7, "agent agt-2") + "\n")).unwrap();
        let kept = fs::read_to_string(&file).unwrap();
        assert!(kept.len() < LARGEST && kept.starts_with(&first), "{}", kept.len());
        assert!(kept.trim_end().ends_with(&line(7, "agent agt-2")) && !kept.contains("cut in"));
    }
}
