//! Concurrent units of work on a real database.

use super::*;
use crate::{DatabaseFault, FrontdoorSpec, SecretKeyFile, Store};
use jiff::Timestamp;
use sqlx::{Executor as _, Row};
use tempfile::TempDir;
use tokio::task::{JoinHandle, JoinSet, yield_now};
use uuid::Uuid;
use wicketgate_lab::postgres;

/// The longest wait for each step.
const BOUND: Duration = Duration::from_secs(5);

/// A new database: SQLite, or in the second run of these tests PostgreSQL.
async fn store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = match postgres::fresh().unwrap() {
        Some(place) => on_server(&dir, &place).await,
        None => crate::store::fresh(dir.path()).await,
    };
    (dir, store)
}

async fn on_server(dir: &TempDir, place: &str) -> Store {
    let keys = SecretKeyFile::created_at(dir.path().join("secret-key"));
    Store::open(place, &keys).await.unwrap()
}

#[test]
fn everything_on_postgresql() {
    if !postgres::rerun_below("writer::tests", "everything_on_postgresql").unwrap() {
        eprintln!("skipped: PostgreSQL or its system user is missing (apt-get install postgresql)");
    }
}

fn context() -> WriteContext {
    WriteContext::new("a", Timestamp::UNIX_EPOCH, Uuid::now_v7)
}

async fn insert(write: &mut Write, bucket: i64) -> Result<()> {
    let insert = sqlx::query("INSERT INTO traffic VALUES ('x', 1, $1, 0, 0, 0, 0, 0)").bind(bucket);
    insert.execute(write.tx.db()).await?;
    Ok(())
}

/// Writes one bucket, and then fails if `fails` is set.
fn spawn_write(store: &Store, bucket: i64, fails: bool) -> JoinHandle<Result<()>> {
    let store = store.clone();
    tokio::spawn(async move {
        let context = context();
        let made = store.write(&context, move |write| {
            async move {
                insert(write, bucket).await?;
                if fails { Err(StoreError::Stale) } else { Ok(()) }
            }
            .boxed()
        });
        made.await
    })
}

/// A unit that runs until it is released.
struct Held {
    release: oneshot::Sender<()>,
    done: JoinHandle<Result<()>>,
}

impl Held {
    async fn new(store: &Store) -> Self {
        let (begin, begun) = oneshot::channel();
        let (release, released) = oneshot::channel();
        let store = store.clone();
        let done = tokio::spawn(async move {
            let context = context();
            let made = store.write(&context, move |_| {
                async move {
                    begin.send(()).unwrap();
                    let _ = released.await;
                    Ok(())
                }
                .boxed()
            });
            made.await
        });
        timeout(BOUND, begun).await.unwrap().unwrap();
        Self { release, done }
    }

    async fn release(self) -> Result<()> {
        self.release.send(()).unwrap();
        timeout(BOUND, self.done).await.unwrap().unwrap()
    }
}

async fn queued(store: &Store, count: usize) {
    let queue = &store.writer.queue;
    let wait = async {
        while queue.max_capacity() - queue.capacity() < count {
            yield_now().await;
        }
    };
    timeout(BOUND, wait).await.unwrap();
}

async fn written(store: &Store) -> Vec<i64> {
    let rows = sqlx::query("SELECT bucket FROM traffic ORDER BY bucket")
        .fetch_all(&mut *store.database.readers.acquire().await.unwrap())
        .await;
    rows.unwrap().iter().map(|r| r.get(0)).collect()
}

async fn revision(store: &Store) -> i64 {
    sqlx::query("SELECT value FROM revision")
        .fetch_one(&mut *store.database.readers.acquire().await.unwrap())
        .await
        .unwrap()
        .get(0)
}

#[tokio::test]
async fn waiting_units_share_a_commit_and_one_that_fails_is_rolled_back_alone() {
    let (_dir, store) = store().await;
    let before = revision(&store).await;
    let held = Held::new(&store).await;
    let mut writes = Vec::new();
    for n in 0..10 {
        writes.push(spawn_write(&store, n, n % 3 == 2));
        queued(&store, writes.len()).await;
    }
    held.release().await.unwrap();
    for (n, write) in writes.into_iter().enumerate() {
        let done = timeout(BOUND, write).await.unwrap().unwrap();
        assert!(
            matches!((n % 3 == 2, &done), (false, Ok(())) | (true, Err(StoreError::Stale))),
            "{n} {done:?}"
        );
    }
    assert_eq!(written(&store).await, [0, 1, 3, 4, 6, 7, 9]);
    assert_eq!(revision(&store).await, before + 1);
}

#[tokio::test]
async fn a_full_transaction_is_committed_although_more_units_wait() {
    let (_dir, store) = store().await;
    let before = revision(&store).await;
    let held = Held::new(&store).await;
    let count = MOST * 2;
    let writes: Vec<_> = (0..count).map(|n| spawn_write(&store, i64::try_from(n).unwrap(), false)).collect();
    queued(&store, count).await;
    held.release().await.unwrap();
    for write in writes {
        timeout(BOUND, write).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(written(&store).await.len(), count);
    assert_eq!(revision(&store).await, before + 3);
}

#[tokio::test]
async fn a_cancelled_caller_does_not_affect_the_others() {
    let (_dir, store) = store().await;
    let held = Held::new(&store).await;
    let first = spawn_write(&store, 1, false);
    queued(&store, 1).await;
    let gone = spawn_write(&store, 2, false);
    queued(&store, 2).await;
    let last = spawn_write(&store, 3, false);
    queued(&store, 3).await;
    // This unit has not begun, and never runs.
    gone.abort();
    assert!(timeout(BOUND, gone).await.unwrap().is_err());
    // This unit has begun, and is completed.
    held.done.abort();
    held.release.send(()).unwrap();
    for write in [first, last] {
        timeout(BOUND, write).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(written(&store).await, [1, 3]);
}

#[tokio::test]
async fn a_lost_transaction_is_an_error_for_all_its_units() {
    let (_dir, store) = store().await;
    let held = Held::new(&store).await;
    let first = spawn_write(&store, 1, false);
    queued(&store, 1).await;
    let breaking = store.clone();
    let breaking = tokio::spawn(async move {
        // SQLite rolls back on its own like this when the disk is full; PostgreSQL loses a transaction with its connection.
        let context = context();
        let made = breaking.write(&context, |write| {
            async move { Ok(write.tx.db().execute("ROLLBACK").await.map(|_| ())?) }.boxed()
        });
        made.await
    });
    queued(&store, 2).await;
    let last = spawn_write(&store, 3, false);
    queued(&store, 3).await;
    let mut errors = vec![held.release().await];
    for write in [first, breaking, last] {
        errors.push(timeout(BOUND, write).await.unwrap().unwrap());
    }
    for error in errors {
        let Err(StoreError::Commit(cause)) = error else { panic!("{error:?}") };
        assert!(matches!(*cause, StoreError::Database(_)), "{cause:?}");
    }
    assert_eq!(written(&store).await, [0; 0]);
    timeout(BOUND, spawn_write(&store, 4, false)).await.unwrap().unwrap().unwrap();
    assert_eq!(written(&store).await, [4]);
}

#[tokio::test]
async fn frontdoors_are_cached_again_after_a_failed_commit() {
    // With several servers, nothing is cached.
    let dir = TempDir::new().unwrap();
    let store = crate::store::fresh(dir.path()).await;
    let spec = FrontdoorSpec {
        organization: "o".to_owned(),
        default_namespace: "d".parse().unwrap(),
        ipsec_shares_enabled: true,
        quotas: Default::default(),
    };
    let frontdoor = store.create_frontdoor(&spec, &context()).await.unwrap();
    let context = context();
    let lost = store.write(&context, |write| {
        async move {
            write.deferred.forgets = true;
            Ok(write.tx.db().execute("ROLLBACK").await.map(|_| ())?)
        }
        .boxed()
    });
    assert!(matches!(lost.await, Err(StoreError::Commit(_))));
    timeout(BOUND, spawn_write(&store, 1, false)).await.unwrap().unwrap().unwrap();

    assert!(store.frontdoor(frontdoor.id).await.unwrap().is_some());
    // Behind the store's back, as no other process does: the cache is seen by what it still has.
    let mut tx = store.database.begin().await.unwrap();
    tx.carry_out("UPDATE frontdoor SET deleted_at = 1").await.unwrap();
    tx.commit().await.unwrap();
    assert!(store.frontdoor(frontdoor.id).await.unwrap().is_some(), "it is cached");
}

#[tokio::test]
async fn a_unit_that_panics_does_not_affect_later_ones() {
    let (_dir, store) = store().await;
    let context = context();
    let made = store.write::<()>(&context, |_| async { panic!("the unit panics") }.boxed());
    let made = timeout(BOUND, made).await.unwrap();
    assert!(matches!(made, Err(StoreError::Database(sqlx::Error::WorkerCrashed))), "{made:?}");
    timeout(BOUND, spawn_write(&store, 1, false)).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_unit_that_does_not_end_times_out() {
    let (_dir, store) = store().await;
    let held = Held::new(&store).await;
    // No other task runs, so the paused clock advances to the next timeout.
    tokio::time::pause();
    let begin = Instant::now();
    let done = held.done.await.unwrap();
    wicketgate_lab::named("503 on a write, which has changed nothing.", begin.elapsed());
    tokio::time::resume();
    let fault = done.unwrap_err().fault();
    assert_eq!(fault, DatabaseFault::Late);
    assert!(fault.to_string().contains("nothing was changed"), "{fault}");
    timeout(BOUND, spawn_write(&store, 1, false)).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_caller_that_waited_too_long_is_told_whether_its_write_has_begun() {
    let (_dir, store) = store().await;
    let held = Held::new(&store).await;
    let began = Instant::now();
    let (begin, begun) = oneshot::channel();
    let slow = store.clone();
    let slow = tokio::spawn(async move {
        let context = context();
        let made = slow.write::<()>(&context, move |_| {
            async move {
                begin.send(()).unwrap();
                std::future::pending().await
            }
            .boxed()
        });
        made.await
    });
    queued(&store, 1).await;
    let waiting = spawn_write(&store, 1, false);
    queued(&store, 2).await;
    tokio::time::pause();
    tokio::time::advance(UNIT).await;
    tokio::time::resume();
    assert!(matches!(timeout(BOUND, held.done).await.unwrap().unwrap(), Err(StoreError::Commit(_))));
    timeout(BOUND, begun).await.unwrap().unwrap();
    // Both units are in memory, so that the clock advances to the callers' patience.
    tokio::time::pause();
    let (slow, waiting) = (slow.await.unwrap(), waiting.await.unwrap());
    assert!(began.elapsed() < BOUND);
    tokio::time::resume();
    assert!(matches!(slow, Err(StoreError::Late)), "{slow:?}");
    assert!(matches!(waiting, Err(StoreError::RolledBack)), "{waiting:?}");
    assert_eq!(written(&store).await, [0; 0]);
}

#[tokio::test]
async fn a_transaction_that_is_open_for_long_accepts_no_more_units() {
    let (_dir, store) = store().await;
    let before = revision(&store).await;
    let held = Held::new(&store).await;
    let late = spawn_write(&store, 1, false);
    queued(&store, 1).await;
    tokio::time::pause();
    tokio::time::advance(OPEN).await;
    tokio::time::resume();
    held.release().await.unwrap();
    timeout(BOUND, late).await.unwrap().unwrap().unwrap();
    assert_eq!(revision(&store).await, before + 2);
}

#[tokio::test]
async fn units_of_a_transaction_share_its_revision_and_its_outcome() {
    let (_dir, store) = store().await;
    let before = revision(&store).await;
    let held = Held::new(&store).await;
    let spec = FrontdoorSpec {
        organization: "o".to_owned(),
        default_namespace: "d".parse().unwrap(),
        ipsec_shares_enabled: true,
        quotas: Default::default(),
    };
    let mut writes = JoinSet::new();
    for n in 0..20 {
        let (store, spec) = (store.clone(), FrontdoorSpec { organization: format!("o-{n}"), ..spec.clone() });
        writes.spawn(async move { store.create_frontdoor(&spec, &context()).await.unwrap() });
    }
    queued(&store, 20).await;
    held.release().await.unwrap();
    assert_eq!(timeout(BOUND, writes.join_all()).await.unwrap().len(), 20);
    assert_eq!(revision(&store).await, before + 1);
    store.create_frontdoor(&spec, &context()).await.unwrap();
    assert_eq!(revision(&store).await, before + 2);
}

#[tokio::test]
async fn what_a_gateway_observes_shares_a_commit_and_takes_no_revision() {
    let (_dir, store) = store().await;
    let before = revision(&store).await;
    let settle = |bucket| {
        let store = store.clone();
        tokio::spawn(async move { store.settle(move |write| insert(write, bucket).boxed()).await })
    };
    settle(1).await.unwrap().unwrap();
    assert_eq!(revision(&store).await, before);
    let revised = store.settle(|write| async { Ok(write.revision) }.boxed()).await.unwrap();
    assert_eq!(revised, None);

    let held = Held::new(&store).await;
    let observed = settle(2);
    queued(&store, 1).await;
    let desired = spawn_write(&store, 3, false);
    queued(&store, 2).await;
    held.release().await.unwrap();
    for write in [observed, desired] {
        timeout(BOUND, write).await.unwrap().unwrap().unwrap();
    }
    assert_eq!(written(&store).await, [1, 2, 3]);
    assert_eq!(revision(&store).await, before + 1);
}

#[tokio::test]
async fn a_server_that_stops_in_a_transaction_holds_others_back_for_a_short_time_only() {
    let Some(place) = postgres::fresh().unwrap() else { return };
    let dir = TempDir::new().unwrap();
    let (stopped, other) = (on_server(&dir, &place).await, on_server(&dir, &place).await);
    let before = revision(&other).await;
    let mut open = Write::begin(&stopped.database, &context()).await.unwrap();
    open.take_revision().await.unwrap();
    let begin = Instant::now();
    // The caller is answered in time, and with success.
    timeout(BOUND, spawn_write(&other, 1, false)).await.unwrap().unwrap().unwrap();
    assert!(begin.elapsed() > Duration::from_secs(2), "it waited for the lock: {:?}", begin.elapsed());
    assert_eq!(revision(&other).await, before + 1);
    let late = insert(&mut open, 2).await.unwrap_err();
    assert!(matches!(late.fault(), DatabaseFault::Late | DatabaseFault::Unreachable(_)), "{late:?}");
    drop(open);
    timeout(BOUND, spawn_write(&stopped, 3, false)).await.unwrap().unwrap().unwrap();
    assert_eq!(written(&other).await, [1, 3]);
}

mod many;
mod statements;
