//! Keeps a record of revocations apart from the database: a backup that is restored does not know those of after it, and
//! everything that they took away would be there again.
//!
//! Invariant: each revocation is in the file within seconds, also one of before the last stop, and once.

use std::{
    collections::{BTreeMap, BTreeSet},
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

/// Half as large, at the cost of who has the most: a customer can make and delete any number of things, and takes away nothing of
/// what others have revoked. Of a customer's lines the older ones go first, and before others those that take no access away.
fn shortened(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().collect();
    let mut left: usize = lines.iter().map(|line| line.len() + 1).sum();
    while left > LARGEST / 2 {
        let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
        for line in &lines {
            *sizes.entry(owner(line)).or_default() += line.len() + 1;
        }
        let Some(largest) = sizes.into_iter().max_by_key(|(_, size)| *size).map(|(of, _)| of) else { break };
        let of_largest = |line: &&str| owner(line) == largest;
        let is_minor = |line: &&str| of_largest(line) && !takes_access(line);
        let minor = lines.iter().filter(|line| is_minor(line)).count();
        let all = lines.iter().filter(|line| of_largest(line)).count();
        let mut dropped = if minor > 0 { minor.div_ceil(2) } else { all.div_ceil(2) };
        lines.retain(|line| {
            let goes = dropped > 0 && if minor > 0 { is_minor(line) } else { of_largest(line) };
            dropped -= usize::from(goes);
            left -= if goes { line.len() + 1 } else { 0 };
            !goes
        });
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The Frontdoor of a line, or who has revoked something of an organization.
fn owner(line: &str) -> &str {
    let mut words = line.splitn(7, ' ').skip(5);
    match (words.next(), words.next()) {
        (Some("-") | None, actor) => actor.unwrap_or(line),
        (Some(frontdoor), _) => frontdoor,
    }
}

/// What was revoked gave access by itself.
fn takes_access(line: &str) -> bool {
    let mut words = line.splitn(7, ' ').skip(2);
    let (action, resource_type) = (words.next(), words.next());
    action == Some("ROTATE_KEY") || matches!(resource_type, Some("agent" | "api-account" | "gateway"))
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
    fn a_large_file_is_shortened_at_the_cost_of_who_has_the_most() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let line =
            |n: usize, what: &str, of: &str| format!("2026-01-01T00:00:00Z exe-{n:032} {what} {of} somebody");
        let (loud, quiet) = ("01a22a0c-ad7d-7403-a613-2cdccd8ac446", "01a22a0c-ad7d-7403-a613-2cdccd8ac447");
        // All that the customer with many has made is old; of others there is something of each kind.
        let others: Vec<_> =
            ["DELETE ipsec-share shr-1", "ROTATE_KEY ipsec-tunnel tnl-1", "DELETE handover-link lnk-1"]
                .iter()
                .map(|what| line(0, what, quiet))
                .chain([line(0, "DELETE api-account acc-1", "-")])
                .collect();
        let access = [line(1, "DELETE agent agt-1", loud), line(2, "ROTATE_KEY ipsec-tunnel tnl-2", loud)];
        let many = (3..LARGEST / 100).map(|n| line(n, "DELETE handover-link lnk-2", loud));
        let text: String =
            others.iter().chain(&access).cloned().chain(many).map(|line| line + "\n").collect();
        assert!(text.len() > LARGEST);
        fs::write(&file, [text.as_bytes(), b"2026 cut in \xc3"].concat()).unwrap();
        let newest = line(7, "DELETE agent agt-2", quiet) + "\n";
        append(&file, &newest).unwrap();
        let kept = fs::read_to_string(&file).unwrap();
        assert!(kept.len() <= LARGEST / 2 + newest.len() && kept.len() > LARGEST / 5, "{}", kept.len());
        assert!(others.iter().chain(&access).all(|line| kept.contains(line.as_str())));
        assert!(kept.ends_with(&newest) && !kept.contains("cut in"));
        // Lines that take access away, in any number, are at the cost of their owner, too.
        let many = (1..LARGEST / 100).map(|n| line(n, "DELETE agent agt-3", loud));
        let text: String = others.iter().cloned().chain(many).map(|line| line + "\n").collect();
        let kept = shortened(&text);
        assert!(kept.len() <= LARGEST / 2 && others.iter().all(|line| kept.contains(line.as_str())));
    }
}
