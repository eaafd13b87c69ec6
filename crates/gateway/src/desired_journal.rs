//! The desired state on the gateway's disk, from which it starts while no server answers.
//!
//! What is applied is added, and a task of its own writes it: nothing waits for the disk but the report that a row is gone. A failure
//! is told once, and the gateway serves on. The file is then written whole as soon as that works.
//! Invariant: once a number counts as written, a start finds the state with that delta, or a later one.

mod journal_file;
mod kept;

use std::{collections::BTreeSet, mem, path::PathBuf, sync::Arc, time::Duration};

use tokio::{select, sync::Notify, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use wicketgate_model::{DesiredDelta, Era, TunnelId};
use wicketgate_seal::SecretKeys;
use wicketgate_system::{Mutex, Outage};

use crate::observations::Observations;
use journal_file::{JournalChange, JournalFile};
use kept::JournalRecord;
pub(crate) use kept::KeptDesired;

/// Between two attempts at a disk that cannot be written.
const AGAIN: Duration = Duration::from_secs(5);
/// Rows of deltas that wait for the disk. Beyond them, the file is written whole: the state is in memory in any case.
const MOST: usize = 10_000;

/// A journal that was opened, for a gateway's start.
#[derive(Debug)]
pub struct DesiredJournal {
    file: JournalFile,
    kept: Option<KeptDesired>,
}

impl DesiredJournal {
    /// Reads the file. One that cannot be used is told to the log, and replaced by what a server sends.
    /// `owner`: the gateway and its authority. A journal of another one is not used.
    pub fn open(path: PathBuf, owner: &str, keys: SecretKeys) -> Self {
        let mut file = JournalFile::new(path, owner.to_owned(), keys);
        let kept = file.read().unwrap_or_else(|why| {
            error!(
                file = %file.path().display(), %why,
                "the desired state of the last run cannot be used, so that nothing is served until a server answers: restore the state \
                 key that belongs to it, or start a server"
            );
            file.is_stale = true;
            None
        });
        Self { file, kept }
    }

    /// Starts the task that writes. Returns where deltas are added, and what was read.
    pub(crate) fn start(
        self,
        observations: Arc<Observations>,
        stop: CancellationToken,
    ) -> (Arc<JournalQueue>, Option<KeptDesired>, impl Future<Output = ()>) {
        let Self { file, kept } = self;
        let state = kept.clone().unwrap_or_default();
        let queue = Queue { state, waiting: Vec::new(), rows: 0, is_stale: file.is_stale, number: 0 };
        let queue = Arc::new(JournalQueue { inner: Mutex::new(queue), added: Notify::new() });
        let task = Arc::clone(&queue).write(file, observations, stop);
        (queue, kept, task)
    }
}

/// What waits for the disk.
#[derive(Debug)]
pub(crate) struct JournalQueue {
    inner: Mutex<Queue>,
    added: Notify,
}

#[derive(Debug)]
struct Queue {
    state: KeptDesired,
    waiting: Vec<JournalRecord>,
    /// Of what waits.
    rows: usize,
    /// The file has to be written whole.
    is_stale: bool,
    /// Of the last delta.
    number: u64,
}

impl JournalQueue {
    /// Adds a delta that is applied, and the tunnels whose removal is held back after it. Returns its number.
    pub(crate) fn add(&self, era: Era, delta: &DesiredDelta, doubted: BTreeSet<TunnelId>) -> u64 {
        let mut queue = self.inner.lock();
        queue.state.apply(era, delta, doubted.clone());
        queue.number += 1;
        queue.rows += rows_of(delta);
        queue.is_stale |= queue.rows > MOST;
        if queue.is_stale {
            queue.waiting.clear();
        } else {
            queue.waiting.push(JournalRecord { era, is_whole: true, delta: delta.clone(), doubted });
        }
        self.added.notify_one();
        queue.number
    }

    /// What is to be written, and the number of the last delta in it.
    fn take(&self) -> Option<(u64, JournalChange)> {
        let mut queue = self.inner.lock();
        if !queue.is_stale && queue.waiting.is_empty() {
            return None;
        }
        // Before the first delta, nothing has to be kept that the file has not, and a file that cannot be used stays.
        if queue.number == 0 {
            return None;
        }
        queue.rows = 0;
        let waiting = mem::take(&mut queue.waiting);
        let change = match mem::take(&mut queue.is_stale) {
            true => JournalChange::Replace(Box::new(queue.state.clone())),
            false => JournalChange::Append(waiting),
        };
        Some((queue.number, change))
    }

    /// Writes until the gateway stops, and then what is left.
    async fn write(
        self: Arc<Self>,
        mut file: JournalFile,
        observations: Arc<Observations>,
        stop: CancellationToken,
    ) {
        let mut outage = Outage::default();
        loop {
            let is_last = stop.is_cancelled();
            if let Some((number, change)) = self.take() {
                let written = spawn_blocking(move || {
                    let done = file.carry_out(&change);
                    (file, done)
                });
                let Ok((back, done)) = written.await else { return };
                file = back;
                self.inner.lock().is_stale |= file.is_stale;
                match done {
                    Ok(()) => {
                        observations.synced(number);
                        if outage.recovered() {
                            info!(file = %file.path().display(), "the desired state is on the disk again");
                        }
                    }
                    Err(error) => {
                        tell(&file, &error, outage.failed(), is_last);
                        stop.run_until_cancelled(sleep(AGAIN)).await;
                        self.added.notify_one();
                    }
                }
            }
            if is_last {
                return;
            }
            select! {
                () = self.added.notified() => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

fn tell(file: &JournalFile, error: &std::io::Error, is_first: bool, is_last: bool) {
    let file = file.path().display();
    if is_last {
        warn!(%file, %error, "the desired state could not be written: the next start needs a server for what has changed");
    } else if is_first {
        error!(
            %file, %error,
            "the desired state cannot be written: the gateway serves on, rows that are removed stay in DELETING, and a restart without \
             a server would serve an older state. Free some room on the disk, or make it writable"
        );
    }
}

fn rows_of(delta: &DesiredDelta) -> usize {
    let DesiredDelta { tunnels, shares, removed_tunnels, removed_shares, agents, forgotten_agents, .. } =
        delta;
    let removed = removed_tunnels.len() + removed_shares.len() + forgotten_agents.len();
    tunnels.len() + shares.len() + agents.len() + removed + 1
}

#[cfg(test)]
mod tests;
