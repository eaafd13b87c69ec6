//! Group commit: writes that come while another is being committed share the next commit, so that a disk's
//! sync is paid once for all of them.
//!
//! A write has the connection for itself, between a savepoint and its release, and then gives it to the next one that
//! waits; when nobody waits, the batch is committed. A lone write never waits for company. PostgreSQL groups commits by
//! itself, and its locks would be held for longer: there a batch is one write.
//!
//! Invariants: a write is answered after the commit that holds it, and with that commit's result. A write that was
//! dropped is rolled back by whoever comes next, alone. A batch that is open has somebody who will end it.

use crate::{Result, Store, StoreError};
use sqlx::{Any, Executor, Transaction};
use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard, oneshot},
    time::timeout,
};
use tracing::error;

/// Bounds how long the first one waits: some ten milliseconds.
pub(crate) const MOST: usize = 64;
/// A write that waits longer for its turn is better answered with 503.
const TURN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Batches {
    open: Arc<Mutex<Option<Batch>>>,
    /// Who waits for a turn.
    queue: AtomicUsize,
    /// Writes in a batch.
    most: usize,
}

/// A transaction that holds the writes of several.
#[derive(Debug)]
struct Batch {
    tx: Transaction<'static, Any>,
    /// Those whose writes are in it.
    waiters: Vec<oneshot::Sender<Result<(), String>>>,
    /// The last write was dropped half-way.
    is_torn: bool,
}

/// A write's turn.
#[derive(Debug)]
pub(crate) struct Turn {
    batch: OwnedMappedMutexGuard<Option<Batch>, Batch>,
    store: Store,
    is_over: bool,
}

impl Batches {
    pub(crate) fn of(most: usize) -> Arc<Self> {
        Arc::new(Self { open: Arc::default(), queue: AtomicUsize::new(0), most })
    }

    fn has_savepoints(&self) -> bool {
        self.most > 1
    }
}

impl Store {
    /// Waits for the turn of one write.
    pub(crate) async fn turn(&self) -> Result<Turn> {
        let queued = Queued::enter(self);
        let lock = timeout(TURN, Arc::clone(&self.batches.open).lock_owned()).await;
        let mut open = lock.map_err(|_| StoreError::Database(sqlx::Error::PoolTimedOut))?;
        let most = self.batches.most;
        if let Some(full) = open.take_if(|b| b.waiters.len() >= most || (b.is_torn && most == 1)) {
            // As in `flush`: it is carried out although this request may go away.
            let _ = tokio::spawn(commit(full, most > 1)).await;
        }
        if let Some(batch) = open.as_mut().filter(|b| b.is_torn)
            && let Err(error) = batch.mend().await
        {
            error!(%error, "a write could not be rolled back: its whole batch is");
            *open = None;
        }
        if open.is_none() {
            *open = Some(Batch { tx: self.begin().await?, waiters: Vec::new(), is_torn: false });
        }
        let batch = OwnedMutexGuard::try_map(open, Option::as_mut);
        let batch = batch.map_err(|_| StoreError::Database(sqlx::Error::PoolClosed))?;
        let mut turn = Turn { batch, store: self.clone(), is_over: false };
        queued.leave();
        if self.batches.has_savepoints() {
            turn.execute("SAVEPOINT turn").await?;
        }
        Ok(turn)
    }

    /// Ends the batch that is open, if there is one: what was written so far is then seen by readers, or never was.
    pub(crate) async fn flush(&self) {
        let store = self.clone();
        // A commit is not left half-way because whoever asked for it has gone.
        let flushed = tokio::spawn(async move {
            let mut open = store.batches.open.lock().await;
            if let Some(batch) = open.take() {
                commit(batch, store.batches.has_savepoints()).await;
            }
        });
        let _ = flushed.await;
    }

    /// As [`Self::flush`], without waiting for it.
    fn flush_soon(&self) {
        let store = self.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { store.flush().await });
        }
    }
}

impl Turn {
    /// Ends the turn, and waits until the write is durable.
    pub(crate) async fn commit(mut self) -> Result<()> {
        if self.store.batches.has_savepoints() {
            self.execute("RELEASE SAVEPOINT turn").await?;
        }
        let (tell, told) = oneshot::channel();
        self.batch.waiters.push(tell);
        self.is_over = true;
        let store = self.store.clone();
        drop(self);
        if store.batches.queue.load(Ordering::SeqCst) == 0 || !store.batches.has_savepoints() {
            store.flush_soon();
        }
        let result = told.await.unwrap_or_else(|_| Err("the commit was not carried out".to_owned()));
        result.map_err(|text| StoreError::Database(sqlx::Error::Protocol(text)))
    }
}

impl Deref for Turn {
    type Target = Transaction<'static, Any>;

    fn deref(&self) -> &Self::Target {
        &self.batch.tx
    }
}

impl DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.batch.tx
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_over {
            self.batch.is_torn = true;
            self.store.flush_soon();
        }
    }
}

impl Batch {
    /// Rolls back the write that was dropped.
    async fn mend(&mut self) -> Result<(), sqlx::Error> {
        self.tx.execute("ROLLBACK TO SAVEPOINT turn").await?;
        self.tx.execute("RELEASE SAVEPOINT turn").await?;
        self.is_torn = false;
        Ok(())
    }
}

async fn commit(mut batch: Batch, has_savepoints: bool) {
    if batch.is_torn && !has_savepoints {
        return drop(batch);
    }
    let mended = if batch.is_torn { batch.mend().await } else { Ok(()) };
    let Batch { tx, waiters, .. } = batch;
    let result = match mended {
        Ok(()) => tx.commit().await,
        Err(error) => tx.rollback().await.and(Err(error)),
    };
    if let Err(error) = &result {
        error!(%error, writes = waiters.len(), "a commit failed");
    }
    for waiter in waiters {
        // Who has gone does not want to know.
        let _ = waiter.send(result.as_ref().copied().map_err(ToString::to_string));
    }
}

/// A place in the queue. Whoever gives it up may have been the one that the open batch was left to.
struct Queued<'a>(Option<&'a Store>);

impl<'a> Queued<'a> {
    fn enter(store: &'a Store) -> Self {
        store.batches.queue.fetch_add(1, Ordering::SeqCst);
        Self(Some(store))
    }

    fn leave(mut self) {
        if let Some(store) = self.0.take() {
            store.batches.queue.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if let Some(store) = self.0.take() {
            store.batches.queue.fetch_sub(1, Ordering::SeqCst);
            store.flush_soon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Act, FrontdoorSpec};
    use jiff::Timestamp;
    use sqlx::Row;
    use tempfile::TempDir;
    use tokio::task::{JoinHandle, yield_now};
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
            if fails { Err(StoreError::Stale) } else { turn.commit().await }
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
        let first = tokio::spawn(first.commit());
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
        timeout(BOUND, first.commit()).await.unwrap().unwrap();
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
        let first = tokio::spawn(first.commit());
        gone.abort();
        timeout(BOUND, first).await.unwrap().unwrap().unwrap();
        // A turn that is dropped, too.
        drop(store.turn().await.unwrap());
        timeout(BOUND, write(&store, 2, false)).await.unwrap().unwrap().unwrap();
        assert!(written(&store).await.contains(&2));
    }

    #[tokio::test]
    async fn a_batch_that_breaks_is_told_to_all_of_it() {
        let (_dir, store) = store().await;
        let mut first = store.turn().await.unwrap();
        let second = write(&store, 2, false);
        queued(&store, 1).await;
        // As SQLite does by itself when the disk is full.
        first.execute("ROLLBACK").await.unwrap();
        assert!(timeout(BOUND, first.commit()).await.unwrap().is_err());
        let _ = timeout(BOUND, second).await.unwrap().unwrap();
        timeout(BOUND, write(&store, 3, false)).await.unwrap().unwrap().unwrap();
        assert_eq!(written(&store).await.last(), Some(&3));
    }

    #[tokio::test]
    async fn revisions_follow_one_another_within_a_batch() {
        let (_dir, store) = store().await;
        let spec = FrontdoorSpec {
            organization: "o".to_owned(),
            default_namespace: "d".parse().unwrap(),
            ipsec_shares_enabled: true,
        };
        let act = Act::new("a", Timestamp::UNIX_EPOCH, Uuid::now_v7);
        let made = futures(&store, &spec, &act).await;
        assert_eq!(made, 20);
        let row = sqlx::query("SELECT value FROM revision").fetch_one(&store.readers).await.unwrap();
        assert_eq!(row.get::<i64, _>(0), 20);
    }

    async fn futures(store: &Store, spec: &FrontdoorSpec, act: &Act) -> usize {
        let mut writes = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (store, spec, act) = (store.clone(), spec.clone(), act.clone());
            writes.spawn(async move { store.create_frontdoor(&spec, &act).await.unwrap() });
        }
        timeout(BOUND, writes.join_all()).await.unwrap().len()
    }
}
