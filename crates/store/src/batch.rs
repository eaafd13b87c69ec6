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

mod turn;

use crate::{Result, Store, StoreError, deferred::Deferred, transaction::Transaction};
use sqlx::Row;
use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};
use tokio::{
    sync::{Mutex, oneshot},
    time::timeout,
};
use tracing::error;
pub(crate) use turn::Turn;

/// Bounds how long the first one waits: some ten milliseconds.
pub(crate) const MOST: usize = 64;
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
    deferred: Deferred,
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

impl Batches {
    pub(crate) fn of(most: usize) -> Arc<Self> {
        Arc::new(Self { open: Arc::default(), queue: AtomicUsize::new(0), most })
    }

    fn has_savepoints(&self) -> bool {
        self.most > 1
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
            deferred: Deferred::default(),
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
    let Batch { tx, waiters, deferred, has_savepoint, state, .. } = batch;
    let forgets = deferred.forgets;
    let result = match state {
        State::Whole => end(tx, deferred, has_savepoint).await,
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
        Ok(()) if forgets => store.cache.forget(),
        // It may be carried out yet.
        Err(_) if forgets => store.cache.give_up(),
        _ => {}
    }
    for waiter in waiters {
        // Who has gone does not want to know.
        let _ = waiter.send(result.as_ref().copied().map_err(ToString::to_string));
    }
}

/// The savepoint is there as long as the transaction is.
async fn end(mut tx: Transaction, deferred: Deferred, has_savepoint: bool) -> Result<()> {
    if has_savepoint {
        tx.carry_out("RELEASE SAVEPOINT turn").await?;
    }
    let written = timeout(OWN, deferred.write(&mut tx)).await;
    written.map_err(|_| StoreError::Late)??;
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests;
