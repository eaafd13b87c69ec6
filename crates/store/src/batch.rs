//! Group commit: writes that come while another is being committed share the next commit, so that a disk's
//! sync is paid once for all of them.
//!
//! A write has the connection for itself, from a savepoint on, and then gives it to the next one that waits; when nobody
//! waits, the batch is committed. A lone write never waits for company. PostgreSQL groups commits by itself, and its
//! locks would be held for longer: there a batch is one write. What every write has to do, the writes of a batch do
//! once: take a revision at its beginning, tell events and keep numbers at its end.
//!
//! Invariants: a write is answered after the commit that holds it, and with that commit's result. A write that was
//! dropped is rolled back by whoever comes next, alone. A batch that is open has somebody who will end it. What is done
//! to a batch is done to its end by a task of its own, and in bounded time: no caller that goes away, and no host that
//! is gone, holds up the writes of others.

use crate::{Result, Store, StoreError, ending::Ending, transaction::Transaction};
use sqlx::Row;
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
/// From the end of a turn to the end of the commit: those before it in the batch are waited for, and each statement
/// has a bound of its own. Beyond that, nobody knows what became of the write.
const DURABLE: Duration = Duration::from_secs(25);
/// For the statements that a batch has of its own: a host that is gone says nothing, see [`crate::transaction`].
const OWN: Duration = Duration::from_secs(10);

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
    tx: Transaction,
    revision: i64,
    /// Those whose writes are in it.
    waiters: Vec<oneshot::Sender<Result<(), String>>>,
    /// Of all their writes.
    ending: Ending,
    /// The last write's savepoint is not released yet: the next write does it on its way, or the commit.
    has_savepoint: bool,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    /// The last write was dropped half-way: all that follows its savepoint is to be rolled back.
    Torn,
    /// Its savepoints are not what they should be: nothing of it can be kept.
    Broken,
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
        let open = lock.map_err(|_| StoreError::Late)?;
        // What is done to a batch is done to its end, although this caller may go away: the writes of others are in it.
        let begun = tokio::spawn(begin_turn(self.clone(), open, queued)).await;
        begun.map_err(|_| StoreError::Database(sqlx::Error::WorkerCrashed))?
    }

    /// Ends the batch that is open, if there is one: what was written so far is then seen by readers, or never was.
    pub(crate) async fn flush(&self) {
        let store = self.clone();
        // A commit is not left half-way because whoever asked for it has gone.
        let _ = tokio::spawn(async move { store.end_batch().await }).await;
    }

    /// As [`Self::flush`], without waiting for it.
    fn flush_soon(&self) {
        let store = self.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { store.end_batch().await });
        }
    }

    async fn end_batch(&self) {
        // Whoever has the lock that long will find the batch when it is done, and end it.
        let Ok(mut open) = timeout(DURABLE, self.batches.open.lock()).await else {
            return error!("a batch is held for too long");
        };
        if let Some(batch) = open.take() {
            commit(self, batch).await;
        }
    }
}

async fn begin_turn(store: Store, mut open: OwnedMutexGuard<Option<Batch>>, queued: Queued) -> Result<Turn> {
    let (most, has_savepoints) = (store.batches.most, store.batches.has_savepoints());
    if let Some(torn) = open.as_mut().filter(|b| b.state == State::Torn && has_savepoints) {
        torn.mend().await;
    }
    if let Some(over) = open.take_if(|b| b.waiters.len() >= most || b.state != State::Whole) {
        commit(&store, over).await;
    }
    if open.is_none() {
        *open = Some(Batch::begin(&store).await?);
    }
    let batch = OwnedMutexGuard::try_map(open, Option::as_mut);
    let batch = batch.map_err(|_| StoreError::Database(sqlx::Error::PoolClosed))?;
    let mut turn = Turn { batch, store, is_over: false };
    queued.leave();
    if has_savepoints {
        turn.batch.set_savepoint().await?;
    }
    Ok(turn)
}

impl Turn {
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// What the writes of its batch are stamped with.
    pub(crate) fn revision(&self) -> i64 {
        self.batch.revision
    }

    /// Ends the turn, and waits until the write and its ending are durable.
    pub(crate) async fn commit(mut self, ending: Ending) -> Result<()> {
        let (tell, told) = oneshot::channel();
        self.batch.waiters.push(tell);
        self.batch.ending.extend(ending);
        self.is_over = true;
        let store = self.store.clone();
        drop(self);
        if store.batches.queue.load(Ordering::SeqCst) == 0 || !store.batches.has_savepoints() {
            // See `Store::turn`.
            tokio::spawn(async move { store.end_batch().await });
        }
        let result = timeout(DURABLE, told).await.map_err(|_| StoreError::Late)?;
        let result = result.unwrap_or_else(|_| Err("the commit was not carried out".to_owned()));
        result.map_err(|text| StoreError::Database(sqlx::Error::Protocol(text)))
    }
}

impl Deref for Turn {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        &self.batch.tx
    }
}

impl DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut Transaction {
        &mut self.batch.tx
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_over {
            if self.batch.state == State::Whole {
                self.batch.state = State::Torn;
            }
            self.store.flush_soon();
        }
    }
}

impl Batch {
    async fn begin(store: &Store) -> Result<Self> {
        let mut tx = store.begin().await?;
        let next = sqlx::query("UPDATE revision SET value = value + 1 WHERE id = 1 RETURNING value");
        let row = timeout(OWN, next.fetch_one(&mut *tx)).await.map_err(|_| StoreError::Late)??;
        Ok(Self {
            revision: row.try_get(0)?,
            tx,
            waiters: Vec::new(),
            ending: Ending::default(),
            has_savepoint: false,
            state: State::Whole,
        })
    }

    /// For one more write. That the last one's savepoint is still there also shows that its transaction is: a database
    /// may have rolled it back by itself.
    async fn set_savepoint(&mut self) -> Result<()> {
        let statement =
            if self.has_savepoint { "RELEASE SAVEPOINT turn; SAVEPOINT turn" } else { "SAVEPOINT turn" };
        let set = self.tx.carry_out(statement).await;
        match set {
            Ok(()) => self.has_savepoint = true,
            Err(_) => self.state = State::Broken,
        }
        Ok(set?)
    }

    /// Rolls back the write that was dropped. Its savepoint stays.
    async fn mend(&mut self) {
        self.state = match self.tx.carry_out("ROLLBACK TO SAVEPOINT turn").await {
            Ok(()) => State::Whole,
            Err(error) => {
                error!(%error, "a write could not be rolled back: its whole batch is");
                State::Broken
            }
        };
    }
}

async fn commit(store: &Store, mut batch: Batch) {
    if batch.state == State::Torn && store.batches.has_savepoints() {
        batch.mend().await;
    }
    let Batch { tx, waiters, ending, has_savepoint, state, .. } = batch;
    let forgets = ending.forgets;
    let result = match state {
        State::Whole => end(tx, ending, has_savepoint).await,
        State::Torn | State::Broken => {
            // Else it is rolled back by the end of its connection.
            let _ = tx.rollback().await;
            Err(StoreError::Database(sqlx::Error::Protocol("the transaction was rolled back".to_owned())))
        }
    };
    if let (Err(error), false) = (&result, waiters.is_empty()) {
        error!(%error, writes = waiters.len(), "a commit failed");
    }
    match &result {
        Ok(()) if forgets => store.remembered.forget(),
        // It may be carried out yet.
        Err(_) if forgets => store.remembered.give_up(),
        _ => {}
    }
    for waiter in waiters {
        // Who has gone does not want to know.
        let _ = waiter.send(result.as_ref().copied().map_err(ToString::to_string));
    }
}

/// The savepoint is there as long as the transaction is.
async fn end(mut tx: Transaction, ending: Ending, has_savepoint: bool) -> Result<()> {
    if has_savepoint {
        tx.carry_out("RELEASE SAVEPOINT turn").await?;
    }
    let written = timeout(OWN, ending.write(&mut tx)).await;
    written.map_err(|_| StoreError::Late)??;
    Ok(tx.commit().await?)
}

/// A place in the queue. Whoever gives it up may have been the one that the open batch was left to.
struct Queued(Option<Store>);

impl Queued {
    fn enter(store: &Store) -> Self {
        store.batches.queue.fetch_add(1, Ordering::SeqCst);
        Self(Some(store.clone()))
    }

    fn leave(mut self) {
        if let Some(store) = self.0.take() {
            store.batches.queue.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Queued {
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
    use futures_util::FutureExt as _;
    use jiff::Timestamp;
    use sqlx::{Executor as _, Row};
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
            if fails { Err(StoreError::Stale) } else { turn.commit(Ending::default()).await }
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
        let first = tokio::spawn(first.commit(Ending::default()));
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
        timeout(BOUND, first.commit(Ending::default())).await.unwrap().unwrap();
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
        let first = tokio::spawn(first.commit(Ending::default()));
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
            let _ = turn.commit(Ending::default()).now_or_never();
        });
        queued(&store, 2).await;
        let last = write(&store, 2, false);
        queued(&store, 3).await;
        let first = tokio::spawn(first.commit(Ending::default()));
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
        assert!(timeout(BOUND, first.commit(Ending::default())).await.unwrap().is_err());
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
        let act = Act::new("a", Timestamp::UNIX_EPOCH, Uuid::now_v7);
        let mut writes = JoinSet::new();
        for _ in 0..20 {
            let (store, spec, act) = (store.clone(), spec.clone(), act.clone());
            writes.spawn(async move { store.create_frontdoor(&spec, &act).await.unwrap() });
        }
        queued(&store, 20).await;
        timeout(BOUND, first.commit(Ending::default())).await.unwrap().unwrap();
        assert_eq!(timeout(BOUND, writes.join_all()).await.unwrap().len(), 20);
        assert_eq!(revision(&store).await, before + 1);
        store.create_frontdoor(&spec, &act).await.unwrap();
        assert_eq!(revision(&store).await, before + 2);
    }
}
