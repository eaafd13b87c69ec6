//! The turn of one write in a batch, and the queue for it.
//!
//! Invariant: whoever gives up a turn, or a place in the queue, leaves no batch open that nobody will end.

use super::{Batch, State, commit};
use crate::{Result, Store, StoreError, deferred::Deferred, transaction::Transaction};
use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::{OwnedMappedMutexGuard, OwnedMutexGuard, oneshot},
    time::timeout,
};
use tracing::error;

/// A write that waits longer for its turn is better answered with 503.
const TURN: Duration = Duration::from_secs(10);
/// From the end of a turn to the end of the commit: those before it in the batch are waited for, and each statement
/// has a bound of its own. Beyond that, nobody knows what became of the write.
const DURABLE: Duration = Duration::from_secs(25);

/// A write's turn.
#[derive(Debug)]
pub(crate) struct Turn {
    batch: OwnedMappedMutexGuard<Option<Batch>, Batch>,
    store: Store,
    is_over: bool,
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

    /// Ends the turn, and waits until the write and its deferred are durable.
    pub(crate) async fn commit(mut self, deferred: Deferred) -> Result<()> {
        let (tell, told) = oneshot::channel();
        self.batch.waiters.push(tell);
        self.batch.deferred.extend(deferred);
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
