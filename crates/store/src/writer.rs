//! Writes: units of work that run one after another, and share commits.
//!
//! One task runs them. The units that wait for it share a transaction, so that a disk's sync is paid once for all of them;
//! each has a savepoint. A lone unit never waits for company. On PostgreSQL, transactions of several servers follow one
//! another, too: each begins by locking the row of the revision. A transaction takes one revision, before its first unit
//! that changes what gateways should serve, and writes events and counts once at its end.
//!
//! Invariants: whatever writes rows of several resources is such a unit, or begins in turn with them
//! ([`Database::begin_in_turn`]), so that no two transactions wait for each other. A unit is answered after the transaction
//! that held it has ended, and with the error of the commit if it failed. A unit that fails is rolled back alone. A unit
//! whose caller has gone is dropped if it has not begun, and else carried out; a caller that stops to wait is told which of
//! the two. Every step and every transaction has a bound, so that neither a caller that goes away nor a host that is gone
//! delays other units for longer.
//!
//! Exceptions: a caller that waits longer than [`ANSWER`] is answered with `Late` while its unit, which has begun, may still
//! be committed. A unit that takes longer than [`UNIT`] ends its whole transaction. A unit that panics rolls back its transaction too,
//! and no unit of it is answered: their callers see that the writer has gone.

use crate::{
    Result, StoreError, WriteContext,
    database::Database,
    deferred::Deferred,
    event_retention::{self, Written},
    request_time::waited,
    transaction::Transaction,
    write::Write,
};
use futures_util::{FutureExt as _, future::BoxFuture};
use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tracing::error;

/// Units of a transaction. Bounds how long the first one waits: some ten milliseconds. PostgreSQL keeps as many savepoints of a
/// transaction in memory that all its sessions share; with more, every read would become slower.
const MOST: usize = 64;
/// Units that wait. With more, callers wait for a place, as bounded by [`ANSWER`].
const QUEUE: usize = 256;
/// For one unit: some statements, and one for each part of its rows ([`crate::bulk`]), each of which takes milliseconds: never one for
/// each row, of which a tenant may have thousands. A PostgreSQL host that is gone does not answer, see
/// [`crate::transaction`]. Shorter than [`ANSWER`], so that its caller is told that nothing was changed.
const UNIT: Duration = Duration::from_secs(4);
/// A transaction that is open for longer takes no more units: on a slow disk, its first one would wait for all of them. It
/// ends after the unit that runs, so that this, [`UNIT`] and the commit bound it.
const OPEN: Duration = Duration::from_secs(2);
/// From the call to the end of the commit. A caller that waits longer is better answered with 503: within 5 s.
const ANSWER: Duration = Duration::from_millis(4600);

/// A unit of work and its caller.
pub(crate) trait Unit: Send {
    /// Whether its caller has stopped waiting.
    fn is_abandoned(&self) -> bool;

    /// Begins it, unless its caller has stopped waiting. Returns whether it has begun.
    fn begin(&self) -> bool;

    fn context(&self) -> &WriteContext;

    fn revises(&self) -> Revises;

    /// Returns whether it succeeded.
    fn run<'a>(&'a mut self, write: &'a mut Write) -> BoxFuture<'a, bool>;

    /// Answers the caller with the result of [`Unit::run`], unless the transaction failed.
    fn answer(self: Box<Self>, ended: Result<(), Arc<StoreError>>);
}

/// What a unit changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Revises {
    /// What gateways should serve, or what only a reader of the API sees: it takes the transaction's revision.
    Desired,
    /// Nothing that gateways should serve: it takes no revision, and no reconciler looks for its rows.
    Nothing,
}

/// Where units wait for the writer task.
pub(crate) type Queue = mpsc::Sender<Box<dyn Unit>>;

struct Pending<F, T> {
    context: WriteContext,
    revises: Revises,
    work: Option<F>,
    made: Option<Result<T>>,
    caller: oneshot::Sender<Result<T>>,
    /// It has begun, or never begins: whoever sets it first, the writer or the caller, decides.
    is_decided: Arc<AtomicBool>,
}

impl<F, T> Unit for Pending<F, T>
where
    F: for<'a> FnOnce(&'a mut Write) -> BoxFuture<'a, Result<T>> + Send,
    T: Send,
{
    fn is_abandoned(&self) -> bool {
        self.caller.is_closed()
    }

    fn begin(&self) -> bool {
        !self.caller.is_closed() && !self.is_decided.swap(true, Ordering::Relaxed)
    }

    fn context(&self) -> &WriteContext {
        &self.context
    }

    fn revises(&self) -> Revises {
        self.revises
    }

    fn run<'a>(&'a mut self, write: &'a mut Write) -> BoxFuture<'a, bool> {
        let work = self.work.take();
        async move {
            if let Some(work) = work {
                self.made = Some(match write.need_live_actor().await {
                    Ok(()) => work(write).await,
                    Err(error) => Err(error),
                });
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

/// The way to the task that writes. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    database: Database,
    queue: Queue,
}

impl Writer {
    /// Starts the task. It ends when the queue is dropped with the last handle.
    pub(crate) fn start(database: &Database) -> Self {
        let (queue, mut units) = mpsc::channel(QUEUE);
        let own = database.clone();
        tokio::spawn(async move {
            while let Some(first) = units.recv().await {
                let transaction = transact(&own, first, &mut units);
                // The units of the transaction are dropped, which their callers notice; later ones are not affected.
                if AssertUnwindSafe(transaction).catch_unwind().await.is_err() {
                    error!("a write panicked: its transaction is rolled back");
                }
            }
        });
        Self { database: database.clone(), queue }
    }

    /// Runs `work` in a write transaction, and answers when it is durable. An error of `work` undoes what it wrote.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        context: &WriteContext,
        revises: Revises,
        work: impl for<'a> FnOnce(&'a mut Write) -> BoxFuture<'a, Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (caller, answer) = oneshot::channel();
        let is_decided = Arc::new(AtomicBool::new(false));
        let (context, own) = (context.clone(), Arc::clone(&is_decided));
        let unit =
            Box::new(Pending { context, revises, work: Some(work), made: None, caller, is_decided: own });
        let gone = || StoreError::from(sqlx::Error::WorkerCrashed);
        let answered = async {
            self.queue.send(unit).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        };
        let answer = waited(ANSWER, answered).await.unwrap_or_else(|| {
            let has_begun = is_decided.swap(true, Ordering::Relaxed);
            Err(if has_begun { StoreError::Late } else { StoreError::RolledBack })
        });
        match answer {
            Ok(made) => Ok(made),
            Err(error) => Err(self.database.explained(error).await),
        }
    }
}

/// One transaction: `first`, and those that come to the queue meanwhile.
async fn transact(database: &Database, first: Box<dyn Unit>, queue: &mut mpsc::Receiver<Box<dyn Unit>>) {
    if first.is_abandoned() {
        return;
    }
    let mut batch = match Write::begin(database, first.context()).await {
        Ok(write) => Batch::of(write),
        Err(error) => return refuse(error, first, queue),
    };
    let (mut unit, since) = (Some(first), Instant::now());
    while let Some(current) = unit {
        if current.begin() {
            batch.run(current).await;
        }
        let is_open = batch.units.len() < MOST && batch.fault.is_none() && since.elapsed() < OPEN;
        unit = if is_open { queue.try_recv().ok() } else { None };
    }
    batch.end(database).await;
}

/// Answers a unit whose transaction could not begin. If no database can be reached, those that wait are told so too, instead of
/// finding it out one after another.
fn refuse(error: StoreError, first: Box<dyn Unit>, queue: &mut mpsc::Receiver<Box<dyn Unit>>) {
    let waiting = if error.fault().is_unreachable() { queue.len() } else { 0 };
    let error = Arc::new(error);
    first.answer(Err(Arc::clone(&error)));
    for unit in (0..waiting).map_while(|_| queue.try_recv().ok()) {
        unit.answer(Err(Arc::clone(&error)));
    }
}

/// An open transaction with the units that ran in it.
struct Batch {
    write: Write,
    units: Vec<Box<dyn Unit>>,
    /// One unit at least succeeded.
    is_kept: bool,
    /// The last unit's savepoint, which the next unit releases, or the commit.
    has_savepoint: bool,
    /// Nothing of it can be kept.
    fault: Option<StoreError>,
}

impl Batch {
    fn of(write: Write) -> Self {
        Self { write, units: Vec::new(), is_kept: false, has_savepoint: false, fault: None }
    }

    async fn run(&mut self, mut unit: Box<dyn Unit>) {
        if let Err(error) = self.try_run(&mut *unit).await {
            error!(%error, "a write could not be ended: its whole transaction is rolled back");
            self.fault = Some(error);
        }
        self.units.push(unit);
    }

    async fn try_run(&mut self, unit: &mut dyn Unit) -> Result<()> {
        if unit.revises() == Revises::Desired {
            // Before the savepoint, which may be rolled back.
            self.write.take_revision().await?;
        }
        // Releasing the last one fails if the transaction is gone: SQLite rolls back by itself when its disk is full.
        let statement =
            if self.has_savepoint { "RELEASE SAVEPOINT unit; SAVEPOINT unit" } else { "SAVEPOINT unit" };
        self.write.tx.carry_out(statement).await?;
        self.has_savepoint = true;
        self.write.context.clone_from(unit.context());
        let succeeded = timeout(UNIT, unit.run(&mut self.write)).await.map_err(|_| StoreError::RolledBack)?;
        let deferred = std::mem::take(&mut self.write.deferred);
        if succeeded {
            self.write.kept.extend(deferred);
            self.is_kept = true;
        } else {
            self.write.tx.carry_out("ROLLBACK TO SAVEPOINT unit").await?;
        }
        Ok(())
    }

    async fn end(self, database: &Database) {
        let Self { write, units, is_kept, has_savepoint, fault } = self;
        let Write { tx, kept: deferred, revision, .. } = write;
        let Deferred { forgets, erases, .. } = deferred;
        let tells = !deferred.events.is_empty();
        let ended = match fault {
            // The end of the connection rolls back.
            Some(error) => Err(error),
            None if is_kept => commit(tx, deferred, has_savepoint).await,
            None => tx.rollback().await.map(|()| None),
        };
        match &ended {
            Ok(_) => {
                if forgets {
                    database.cache.forget();
                }
                database.commits.committed(is_kept && revision.is_some(), tells);
            }
            Err(error) => {
                error!(%error, writes = units.len(), "a commit failed");
                if forgets {
                    // The database may carry it out yet.
                    database.cache.suspend();
                }
            }
        }
        if erases {
            // Also after an error: the database may carry out the commit yet.
            database.erasure.request();
        }
        let written = *ended.as_ref().unwrap_or(&None);
        let ended = ended.map(drop).map_err(Arc::new);
        for unit in units {
            unit.answer(ended.clone());
        }
        if let Some(written) = written {
            event_retention::bound(database, written).await;
        }
    }
}

async fn commit(mut tx: Transaction, deferred: Deferred, has_savepoint: bool) -> Result<Option<Written>> {
    if has_savepoint {
        tx.carry_out("RELEASE SAVEPOINT unit").await?;
    }
    let written = timeout(UNIT, deferred.write(&mut tx)).await.map_err(|_| StoreError::RolledBack)??;
    tx.commit().await?;
    Ok(written)
}

#[cfg(test)]
mod tests;
