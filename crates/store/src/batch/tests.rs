//! Writes at the same time, on a real database.

use super::*;
use crate::{FrontdoorSpec, WriteContext};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::{Executor as _, Row};
use std::sync::atomic::Ordering;
use tempfile::TempDir;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use uuid::Uuid;

const BOUND: Duration = Duration::from_secs(5);

async fn store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path().join("test.db").to_str().unwrap()).await.unwrap();
    (dir, store)
}

/// Waits for its turn, writes, and commits unless `fails`.
fn write(store: &Store, slot: i64, fails: bool) -> JoinHandle<Result<()>> {
    let store = store.clone();
    tokio::spawn(async move {
        let mut turn = store.turn().await?;
        let sql = "INSERT INTO traffic VALUES ('x', 1, $1, 0, 0, 0, 0, 0)";
        sqlx::query(sql).bind(slot).execute(&mut **turn).await?;
        if fails { Err(StoreError::Stale) } else { turn.commit(Deferred::default()).await }
    })
}

async fn queued(store: &Store, count: usize) {
    let wait = async {
        while store.batches.queue.load(Ordering::SeqCst) < count {
            yield_now().await;
        }
    };
    timeout(BOUND, wait).await.unwrap();
}

async fn written(store: &Store) -> Vec<i64> {
    let rows = sqlx::query("SELECT bucket FROM traffic ORDER BY bucket").fetch_all(&store.readers).await;
    rows.unwrap().iter().map(|r| r.get(0)).collect()
}

#[tokio::test]
async fn those_who_wait_share_a_commit_and_one_that_fails_fails_alone() {
    let (_dir, store) = store().await;
    let first = store.turn().await.unwrap();
    let mut writes = Vec::new();
    for n in 0..10 {
        writes.push(write(&store, n, n % 3 == 2));
        queued(&store, writes.len()).await;
    }
    let first = tokio::spawn(first.commit(Deferred::default()));
    queued(&store, 9).await;
    for (n, write) in writes.into_iter().enumerate() {
        let done = timeout(BOUND, write).await.unwrap().unwrap();
        assert_eq!(done.is_ok(), n % 3 != 2, "{n}");
    }
    timeout(BOUND, first).await.unwrap().unwrap().unwrap();
    assert_eq!(written(&store).await, [0, 1, 3, 4, 6, 7, 9]);
}

#[tokio::test]
async fn a_full_batch_is_committed_although_others_wait() {
    let (_dir, store) = store().await;
    let first = store.turn().await.unwrap();
    let count = i64::try_from(MOST).unwrap() * 2;
    let writes: Vec<_> = (0..count).map(|n| write(&store, n, false)).collect();
    queued(&store, writes.len()).await;
    timeout(BOUND, first.commit(Deferred::default())).await.unwrap().unwrap();
    assert!(store.batches.queue.load(Ordering::SeqCst) > 0);
    for write in writes {
        timeout(BOUND, write).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(written(&store).await.len(), MOST * 2);
}

#[tokio::test]
async fn who_goes_away_leaves_nobody_waiting() {
    let (_dir, store) = store().await;
    let first = store.turn().await.unwrap();
    let gone = write(&store, 1, false);
    queued(&store, 1).await;
    // It gives its turn to the one that waits, which goes away without taking it.
    let first = tokio::spawn(first.commit(Deferred::default()));
    gone.abort();
    timeout(BOUND, first).await.unwrap().unwrap().unwrap();
    // A turn that is dropped, too.
    drop(store.turn().await.unwrap());
    timeout(BOUND, write(&store, 2, false)).await.unwrap().unwrap().unwrap();
    assert!(written(&store).await.contains(&2));
}

#[tokio::test]
async fn who_goes_away_at_its_end_takes_nothing_from_the_others() {
    let (_dir, store) = store().await;
    let first = store.turn().await.unwrap();
    let second = write(&store, 1, false);
    queued(&store, 1).await;
    let gone = store.clone();
    let gone = tokio::spawn(async move {
        let turn = gone.turn().await.unwrap();
        // Begun, and no more looked at.
        let _ = turn.commit(Deferred::default()).now_or_never();
    });
    queued(&store, 2).await;
    let last = write(&store, 2, false);
    queued(&store, 3).await;
    let first = tokio::spawn(first.commit(Deferred::default()));
    timeout(BOUND, gone).await.unwrap().unwrap();
    for write in [first, second, last] {
        timeout(BOUND, write).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(written(&store).await, [1, 2]);
}

#[tokio::test]
async fn a_batch_that_breaks_is_told_to_all_of_it() {
    let (_dir, store) = store().await;
    let mut first = store.turn().await.unwrap();
    let second = write(&store, 2, false);
    queued(&store, 1).await;
    // As SQLite does by itself when the disk is full.
    first.execute("ROLLBACK").await.unwrap();
    assert!(timeout(BOUND, first.commit(Deferred::default())).await.unwrap().is_err());
    let _ = timeout(BOUND, second).await.unwrap().unwrap();
    timeout(BOUND, write(&store, 3, false)).await.unwrap().unwrap().unwrap();
    assert_eq!(written(&store).await.last(), Some(&3));
}

async fn revision(store: &Store) -> i64 {
    sqlx::query("SELECT value FROM revision").fetch_one(&store.readers).await.unwrap().get(0)
}

#[tokio::test]
async fn writes_of_a_batch_share_its_revision_and_its_ending() {
    let (_dir, store) = store().await;
    let before = revision(&store).await;
    let first = store.turn().await.unwrap();
    let spec = FrontdoorSpec {
        organization: "o".to_owned(),
        default_namespace: "d".parse().unwrap(),
        ipsec_shares_enabled: true,
    };
    let context = WriteContext::new("a", Timestamp::UNIX_EPOCH, Uuid::now_v7);
    let mut writes = JoinSet::new();
    for _ in 0..20 {
        let (store, spec, context) = (store.clone(), spec.clone(), context.clone());
        writes.spawn(async move { store.create_frontdoor(&spec, &context).await.unwrap() });
    }
    queued(&store, 20).await;
    timeout(BOUND, first.commit(Deferred::default())).await.unwrap().unwrap();
    assert_eq!(timeout(BOUND, writes.join_all()).await.unwrap().len(), 20);
    assert_eq!(revision(&store).await, before + 1);
    store.create_frontdoor(&spec, &context).await.unwrap();
    assert_eq!(revision(&store).await, before + 2);
}
