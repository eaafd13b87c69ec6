//! Journals as a disk keeps them.

use std::{fs, path::Path};

use proptest::{collection::vec, prelude::*};
use tempfile::TempDir;
use uuid::Uuid;
use wicketgate_model::{
    AgentDesired, AgentId, DesiredDigest, EnvironmentId, Generation, IngressPort, PreSharedKey, ShareDesired,
    ShareId, ShareOptions, SignedAssignment, TunnelDesired, TunnelId,
};

use super::*;
use journal_file::UnusableJournal;

const OWNER: &str = "gateway-5@authority-1";
const SECRET: &str = "a pre-shared key that no file shows";

fn keys(n: u8) -> SecretKeys {
    SecretKeys::parse(&hex(n)).unwrap()
}

fn hex(n: u8) -> String {
    format!("{n:02x}").repeat(32)
}

fn tunnel(n: u8, generation: u64) -> Arc<TunnelDesired> {
    Arc::new(TunnelDesired {
        id: TunnelId::new(Uuid::from_u128(n.into())),
        generation: Generation::new(generation),
        frontdoor: None,
        name: format!("tunnel-{n}").parse().unwrap(),
        slot: n.into(),
        peer_address: "203.0.113.1".parse().unwrap(),
        peer_cidr: "10.0.0.0/16".parse().unwrap(),
        peer_id: "peer.example.org".parse().unwrap(),
        load_balancer_ip: "100.64.0.1".parse().unwrap(),
        keys: vec![SECRET.parse::<PreSharedKey>().unwrap()],
        previous_until: Vec::new(),
        ike_proposals: Default::default(),
        esp_proposals: Default::default(),
        initiate: false,
        cut: None,
        enabled: true,
    })
}

fn share(n: u8, generation: u64) -> Arc<ShareDesired> {
    Arc::new(ShareDesired {
        id: ShareId::new(Uuid::from_u128(n.into())),
        generation: Generation::new(generation),
        tunnel: TunnelId::new(Uuid::from_u128(n.into())),
        environment: EnvironmentId::new(Uuid::nil()),
        ingress_port: IngressPort::try_from(i64::from(n) + 1).unwrap(),
        enabled: true,
        expires_at: None,
        options: ShareOptions::default(),
        assignment: SignedAssignment { body: "{}".to_owned(), signature: vec![7; 64] },
    })
}

/// The delta of one step: rows that come, or go.
fn delta(n: u8, revision: u64, removes: bool) -> DesiredDelta {
    let (tunnel, share) = (tunnel(n, revision), share(n, revision));
    let agent = AgentId::new(Uuid::from_u128(n.into()));
    let delta = DesiredDelta { revision, digest: Some(DesiredDigest([n; 32])), ..DesiredDelta::default() };
    match removes {
        true => DesiredDelta {
            removed_tunnels: vec![tunnel.id],
            removed_shares: vec![share.id],
            forgotten_agents: vec![agent],
            ..delta
        },
        false => DesiredDelta {
            tunnels: vec![tunnel],
            shares: vec![share],
            agents: vec![(agent, AgentDesired::Barred)],
            ..delta
        },
    }
}

/// A gateway's queue and its file, without the task between them.
struct Disk {
    dir: TempDir,
    queue: JournalQueue,
    file: JournalFile,
}

impl Disk {
    fn open(dir: TempDir) -> Self {
        let DesiredJournal { file, kept } = DesiredJournal::open(path(&dir), OWNER, keys(1));
        let state = kept.unwrap_or_default();
        let queue = Queue { state, waiting: Vec::new(), rows: 0, is_stale: file.is_stale, number: 0 };
        Self { dir, queue: JournalQueue { inner: Mutex::new(queue), added: Notify::new() }, file }
    }

    /// Writes what waits.
    fn write(&mut self) -> Option<JournalChange> {
        let (_, change) = self.queue.take()?;
        self.file.carry_out(&change).unwrap();
        self.queue.inner.lock().is_stale |= self.file.is_stale;
        Some(change)
    }

    fn kept(&self) -> KeptDesired {
        self.queue.inner.lock().state.clone()
    }

    fn reopen(self) -> Self {
        Self::open(self.dir)
    }
}

fn path(dir: &TempDir) -> PathBuf {
    dir.path().join("desired")
}

fn read(path: &Path, keys: SecretKeys) -> Result<Option<KeptDesired>, UnusableJournal> {
    JournalFile::new(path.to_owned(), OWNER.to_owned(), keys).read()
}

fn is_same(one: &KeptDesired, other: &KeptDesired) -> bool {
    let of = |kept: &KeptDesired| (kept.era, kept.revision, kept.read_at, kept.digest);
    of(one) == of(other) && one.state == other.state && one.doubted == other.doubted
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_start_finds_what_was_written_wherever_the_next_write_was_cut(
        steps in vec((0_u8..5, any::<bool>(), any::<bool>(), prop::option::weighted(0.2, 0.0_f64..1.0)), 1..30),
    ) {
        let mut disk = Disk::open(tempfile::tempdir().unwrap());
        for ((n, removes, is_written, cut), revision) in steps.into_iter().zip(1..) {
            let before = disk.kept();
            let is_all_written = disk.queue.inner.lock().waiting.is_empty() && !disk.queue.inner.lock().is_stale;
            disk.queue.add(Era::new(revision / 9), &delta(n, revision, removes), BTreeSet::from([tunnel(n, 1).id]));
            let Some(cut) = cut else {
                if is_written {
                    disk.write();
                    prop_assert!(is_same(&read(&path(&disk.dir), keys(1)).unwrap().unwrap(), &disk.kept()));
                }
                continue;
            };
            // The host crashes while it appends: what was there remains, and a part of the rest.
            let length = |disk: &Disk| fs::metadata(path(&disk.dir)).map_or(0, |file| file.len());
            let old = length(&disk);
            let is_append = matches!(disk.write(), Some(JournalChange::Append(_)));
            let (after, new) = (disk.kept(), length(&disk));
            if is_append && is_all_written {
                #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "any place will do")]
                let keep = old + ((new - old) as f64 * cut) as u64;
                fs::File::options().write(true).open(path(&disk.dir)).unwrap().set_len(keep).unwrap();
                disk = disk.reopen();
                prop_assert!(is_same(&disk.kept(), &before), "the cut line is left out");
                prop_assert_eq!(disk.file.is_stale, keep > old);
            } else {
                disk = disk.reopen();
                prop_assert!(is_same(&disk.kept(), &after));
            }
        }
    }
}

#[test]
fn a_state_of_many_rows_is_read_as_it_was_and_shows_no_secret() {
    let mut disk = Disk::open(tempfile::tempdir().unwrap());
    assert!(disk.write().is_none(), "nothing is written before a server has sent something");
    let all = DesiredDelta {
        tunnels: (0..=255).map(|n| tunnel(n, 1)).collect(),
        shares: (0..=255).map(|n| share(n, 1)).collect(),
        ..delta(1, 5, false)
    };
    disk.queue.add(Era::new(3), &DesiredDelta { reset: true, ..all }, BTreeSet::new());
    assert!(matches!(disk.write(), Some(JournalChange::Replace(_))));
    disk.queue.add(Era::new(3), &delta(7, 6, true), BTreeSet::new());
    assert!(matches!(disk.write(), Some(JournalChange::Append(_))));
    let kept = read(&path(&disk.dir), keys(1)).unwrap().unwrap();
    assert!(is_same(&kept, &disk.kept()));
    assert_eq!((kept.state.tunnels.len(), kept.era, kept.revision), (255, Era::new(3), 6));
    let text = fs::read_to_string(path(&disk.dir)).unwrap();
    assert!(!text.contains(SECRET) && !text.contains("203.0.113.1") && !text.contains("tunnel-1"));
}

#[test]
fn a_journal_that_cannot_be_used_says_why_and_is_replaced_by_the_next_state() {
    let mut disk = Disk::open(tempfile::tempdir().unwrap());
    for (n, revision) in [(1, 1), (2, 2), (3, 3)] {
        disk.queue.add(Era::FIRST, &delta(n, revision, false), BTreeSet::new());
        disk.write();
    }
    let path = path(&disk.dir);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let why = |text: &str| {
        private_write(&path, text);
        read(&path, keys(1)).unwrap_err().to_string()
    };
    let joined = |order: &[usize]| order.iter().map(|n| lines[*n]).collect::<String>();
    assert!(lines.len() > 5);
    // Another order, a line that is missing or changed, and the records of another file.
    let mut order: Vec<_> = (0..lines.len()).collect();
    order.swap(1, 2);
    assert_eq!(why(&joined(&order)), "line 2 is damaged");
    order.swap(1, 2);
    order.remove(2);
    assert_eq!(why(&joined(&order)), "line 3 is damaged");
    assert_eq!(why(&text.replacen("7", "8", 1)), "line 2 is damaged");
    assert_eq!(why("wicketgate desired state 2 x\n"), "it is not of this version");
    assert_eq!(
        why(&text.replacen(OWNER, "gateway-8@authority-1", 1)),
        "it is of another gateway, gateway-8@authority-1"
    );
    assert_eq!(why(&joined(&[0, 1])), "its end is missing");
    // The last line was being written when the host crashed, and not all of its blocks are on the disk.
    let (last, before) = lines.split_last().unwrap();
    private_write(&path, &(before.concat() + &last[..last.len() / 2] + "\0\0\0\0\n"));
    assert_eq!(read(&path, keys(1)).unwrap().unwrap().revision, 2);
    private_write(&path, &text);
    let other = read(&path, keys(2)).unwrap_err().to_string();
    assert!(other.contains("it is sealed under key") && other.contains("has"), "{other}");

    private_write(&path, &joined(&[0, 1]));
    let mut disk = disk.reopen();
    assert!(disk.kept().state.tunnels.is_empty() && disk.write().is_none());
    assert_eq!(fs::read_to_string(&path).unwrap(), joined(&[0, 1]), "it stays for who restores the key");
    disk.queue.add(Era::FIRST, &DesiredDelta { reset: true, ..delta(9, 4, false) }, BTreeSet::new());
    disk.write();
    assert!(is_same(&read(&path, keys(1)).unwrap().unwrap(), &disk.kept()));
}

fn private_write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

#[test]
fn a_file_is_written_whole_when_most_of_it_is_out_of_date() {
    let mut disk = Disk::open(tempfile::tempdir().unwrap());
    let (mut replaced, mut largest) = (0, 0);
    for revision in 0..2_000_u64 {
        disk.queue.add(
            Era::FIRST,
            &delta(u8::try_from(revision % 10).unwrap(), revision, false),
            BTreeSet::new(),
        );
        replaced += u32::from(matches!(disk.write(), Some(JournalChange::Replace(_))));
        largest = largest.max(fs::metadata(path(&disk.dir)).unwrap().len());
    }
    // 2,000 records of some two kilobytes.
    assert!((2..10).contains(&replaced), "{replaced}");
    assert!(largest < 2 << 20, "{largest}");
    assert!(is_same(&read(&path(&disk.dir), keys(1)).unwrap().unwrap(), &disk.kept()));
}

#[test]
fn what_waits_for_a_disk_that_hangs_has_a_bound() {
    let mut disk = Disk::open(tempfile::tempdir().unwrap());
    disk.queue.add(Era::FIRST, &delta(1, 1, false), BTreeSet::new());
    disk.write();
    for revision in 2..10_000 {
        disk.queue.add(Era::FIRST, &delta(2, revision, revision % 2 == 0), BTreeSet::new());
    }
    assert!(disk.queue.inner.lock().waiting.is_empty());
    assert!(matches!(disk.write(), Some(JournalChange::Replace(_))));
    assert!(is_same(&read(&path(&disk.dir), keys(1)).unwrap().unwrap(), &disk.kept()));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_cannot_be_written_holds_up_nothing_and_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("state");
    let journal = DesiredJournal::open(folder.join("desired"), OWNER, keys(1));
    let (observations, stop) = (Arc::<Observations>::default(), CancellationToken::new());
    let (queue, kept, task) = journal.start(Arc::clone(&observations), stop.clone());
    assert!(kept.is_none());
    let task = tokio::spawn(task);
    // The folder does not exist.
    queue.add(Era::FIRST, &delta(1, 1, false), BTreeSet::new());
    sleep(AGAIN * 3).await;
    queue.add(Era::FIRST, &delta(1, 2, true), BTreeSet::new());
    sleep(AGAIN / 2).await;
    assert!(!folder.exists());
    fs::create_dir(&folder).unwrap();
    while read(&folder.join("desired"), keys(1)).unwrap().is_none() {
        sleep(AGAIN).await;
    }
    // What is added right before the stop is written, too.
    queue.add(Era::FIRST, &delta(3, 3, false), BTreeSet::new());
    stop.cancel();
    task.await.unwrap();
    let kept = read(&folder.join("desired"), keys(1)).unwrap().unwrap();
    assert!(is_same(&kept, &queue.inner.lock().state));
    assert_eq!((kept.revision, kept.state.tunnels.len()), (3, 1));
}
