//! Writes: units of work that run one after another on the connection that writes, and share commits.
//!
//! On SQLite one task owns that connection. The units that wait for it share a transaction, so that a disk's sync is
//! paid once for all of them; each has a savepoint. A lone unit never waits for company. PostgreSQL groups commits by
//! itself, and its locks would be held for longer: there each unit has a transaction and a task of its own. A
//! transaction takes one revision at its beginning, and writes events and counts once at its end.
//!
//! Invariants: a unit is answered after the transaction that held it has ended, and with the error of the commit if it
//! failed. A unit that fails is rolled back alone. A unit whose caller has gone is dropped if it has not begun, and else
//! carried out. Every step has a bound: no caller that goes away and no host that is gone holds up other units.

use crate::{
    Result, Store, StoreError, WriteContext, deferred::Deferred, transaction::Transaction, write::Write,
};
use futures_util::{FutureExt as _, future::BoxFuture};
use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tracing::error;

/// Units of a transaction. Bounds how long the first one waits: some ten milliseconds.
const MOST: usize = 64;
/// Units that wait. With more, callers wait for a place, as bounded by [`ANSWER`].
const QUEUE: usize = 256;
/// For one unit: some statements, each of which takes milliseconds. A PostgreSQL host that is gone does not answer, see
/// [`crate::transaction`].
const UNIT: Duration = Duration::from_secs(10);
/// From the call to the end of the commit. A caller that waits longer is better answered with 503.
const ANSWER: Duration = Duration::from_secs(25);

/// A unit of work and its caller.
pub(crate) trait Unit: Send {
    /// Whether its caller has stopped waiting.
    fn is_abandoned(&self) -> bool;

    fn context(&self) -> &WriteContext;

    /// Returns whether it succeeded.
    fn run<'a>(&'a mut self, write: &'a mut Write) -> BoxFuture<'a, bool>;

    /// Answers the caller with the result of [`Unit::run`], unless the transaction failed.
    fn answer(self: Box<Self>, ended: Result<(), Arc<StoreError>>);
}

/// Where units wait for the writer task.
pub(crate) type Queue = mpsc::Sender<Box<dyn Unit>>;

struct Pending<F, T> {
    context: WriteContext,
    work: Option<F>,
    made: Option<Result<T>>,
    caller: oneshot::Sender<Result<T>>,
}

impl<F, T> Unit for Pending<F, T>
where
    F: for<'a> FnOnce(&'a mut Write) -> BoxFuture<'a, Result<T>> + Send,
    T: Send,
{
    fn is_abandoned(&self) -> bool {
        self.caller.is_closed()
    }

    fn context(&self) -> &WriteContext {
        &self.context
    }

    fn run<'a>(&'a mut self, write: &'a mut Write) -> BoxFuture<'a, bool> {
        let work = self.work.take().map(|work| work(write));
        async move {
            if let Some(work) = work {
                self.made = Some(work.await);
            }
            matches!(self.made, Some(Ok(_)))
        }
        .boxed()
    }

    fn answer(self: Box<Self>, ended: Result<(), Arc<StoreError>>) {
        let made = self.made.unwrap_or(Err(StoreError::Late));
        // A caller that has gone does not read it.
        let _ = self.caller.send(ended.map_err(StoreError::Commit).and(made));
    }
}

impl Store {
    /// Runs `work` in a write transaction, and answers when it is durable. An error of `work` undoes what it wrote.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        context: &WriteContext,
        work: impl for<'a> FnOnce(&'a mut Write) -> BoxFuture<'a, Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (caller, answer) = oneshot::channel();
        let unit = Box::new(Pending { context: context.clone(), work: Some(work), made: None, caller });
        let gone = || StoreError::from(sqlx::Error::WorkerCrashed);
        let answered = async {
            match &self.queue {
                Some(queue) => queue.send(unit).await.map_err(|_| gone())?,
                None => {
                    let store = self.clone();
                    tokio::spawn(async move { transact(&store, unit, None).await });
                }
            }
            answer.await.map_err(|_| gone())?
        };
        timeout(ANSWER, answered).await.map_err(|_| StoreError::Late)?
    }

    /// Starts the task that owns the connection. It ends when the queue is dropped with the last handle of the store.
    pub(crate) fn start_writer(&mut self) {
        let (queue, mut units) = mpsc::channel(QUEUE);
        let store = self.clone();
        tokio::spawn(async move {
            while let Some(first) = units.recv().await {
                let transaction = transact(&store, first, Some(&mut units));
                // The units of the transaction are dropped, which their callers notice; later ones are not affected.
                if AssertUnwindSafe(transaction).catch_unwind().await.is_err() {
                    error!("a write panicked: its transaction is rolled back");
                }
            }
        });
        self.queue = Some(queue);
    }
}

/// One transaction: `first`, and those that come to the queue meanwhile.
async fn transact(
    store: &Store,
    first: Box<dyn Unit>,
    mut queue: Option<&mut mpsc::Receiver<Box<dyn Unit>>>,
) {
    if first.is_abandoned() {
        return;
    }
    let mut batch = match Write::begin(store, first.context()).await {
        Ok(write) => Batch::of(write, queue.is_some()),
        Err(error) => return first.answer(Err(Arc::new(error))),
    };
    let mut unit = Some(first);
    while let Some(current) = unit {
        if !current.is_abandoned() {
            batch.run(current).await;
        }
        let room = queue.as_mut().filter(|_| batch.units.len() < MOST && batch.fault.is_none());
        unit = room.and_then(|queue| queue.try_recv().ok());
    }
    batch.end(store).await;
}

/// An open transaction with the units that ran in it.
struct Batch {
    write: Write,
    units: Vec<Box<dyn Unit>>,
    /// Of all units that succeeded.
    deferred: Deferred,
    /// One unit at least succeeded.
    is_kept: bool,
    has_savepoints: bool,
    /// The last unit's savepoint, which the next unit releases, or the commit.
    has_savepoint: bool,
    /// Nothing of it can be kept.
    fault: Option<StoreError>,
}

impl Batch {
    fn of(write: Write, has_savepoints: bool) -> Self {
        let (units, deferred) = (Vec::new(), Deferred::default());
        Self { write, units, deferred, is_kept: false, has_savepoints, has_savepoint: false, fault: None }
    }

    async fn run(&mut self, mut unit: Box<dyn Unit>) {
        if let Err(error) = self.try_run(&mut *unit).await {
            error!(%error, "a write could not be ended: its whole transaction is rolled back");
            self.fault = Some(error);
        }
        self.units.push(unit);
    }

    async fn try_run(&mut self, unit: &mut dyn Unit) -> Result<()> {
        if self.has_savepoints {
            // Releasing the last one fails if the transaction is gone: SQLite rolls back by itself when its disk is full.
            let statement =
                if self.has_savepoint { "RELEASE SAVEPOINT unit; SAVEPOINT unit" } else { "SAVEPOINT unit" };
            self.write.tx.carry_out(statement).await?;
            self.has_savepoint = true;
        }
        self.write.context.clone_from(unit.context());
        let succeeded = timeout(UNIT, unit.run(&mut self.write)).await.map_err(|_| StoreError::Late)?;
        let deferred = std::mem::take(&mut self.write.deferred);
        if succeeded {
            self.deferred.extend(deferred);
            self.is_kept = true;
        } else if self.has_savepoint {
            self.write.tx.carry_out("ROLLBACK TO SAVEPOINT unit").await?;
        }
        Ok(())
    }

    async fn end(self, store: &Store) {
        let Self { write, units, deferred, is_kept, has_savepoint, fault, .. } = self;
        let (forgets, tells) = (deferred.forgets, !deferred.events.is_empty());
        let ended = match fault {
            // The end of the connection rolls back.
            Some(error) => Err(error),
            None if is_kept => commit(write.tx, deferred, has_savepoint).await,
            None => write.tx.rollback().await.map_err(StoreError::from),
        };
        match &ended {
            Ok(()) => {
                if forgets {
                    store.cache.forget();
                }
                if tells {
                    store.events_committed.notify_one();
                }
            }
            Err(error) => {
                error!(%error, writes = units.len(), "a commit failed");
                if forgets {
                    // The database may carry it out yet.
                    store.cache.give_up();
                }
            }
        }
        let ended = ended.map_err(Arc::new);
        for unit in units {
            unit.answer(ended.clone());
        }
    }
}

async fn commit(mut tx: Transaction, deferred: Deferred, has_savepoint: bool) -> Result<()> {
    if has_savepoint {
        tx.carry_out("RELEASE SAVEPOINT unit").await?;
    }
    timeout(UNIT, deferred.write(&mut tx)).await.map_err(|_| StoreError::Late)??;
    Ok(tx.commit().await?)
}

#[cfg(test)]
mod tests;
