//! Removes old pages from SQLite's write-ahead log after a secret was replaced or deleted: the database itself overwrites
//! what it deletes, its log keeps the pages of before.
//!
//! Invariant: no write waits for a reader. While one still reads what was before, the attempt fails and is repeated.

use crate::{Result, StoreError, connections::Connections};
use sqlx::{Executor as _, Row as _};
use std::{io, time::Duration};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::warn;
use wicketgate_system::backoff::Backoff;

/// How long a connection waits for a lock. Milliseconds: less than a statement's bound, which would not say what was waited
/// for.
pub(crate) const BUSY: &str = "PRAGMA busy_timeout = 3500";
const NOT_BUSY: &str = "PRAGMA busy_timeout = 0";
/// The log becomes an empty file.
const CHECKPOINT: &str = "PRAGMA wal_checkpoint(TRUNCATE)";

/// For the pages of a log, which is checkpointed at 4 MB anyway, and their sync.
const WITHIN: Duration = Duration::from_secs(4);
/// Between attempts: readers take milliseconds, and a large list some seconds.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// After an erasure. Deletions of many tunnels share the next one.
const REST: Duration = Duration::from_millis(200);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Erasure(Option<mpsc::Sender<()>>);

impl Erasure {
    /// For a database without such a log.
    pub(crate) fn not_needed() -> Self {
        Self(None)
    }

    /// Starts the task, which ends with the last handle or when the connections are closed.
    pub(crate) fn start(writers: Connections) -> Self {
        // One that waits is enough: it covers all that was committed before.
        let (requests, mut due) = mpsc::channel(1);
        tokio::spawn(async move {
            while due.recv().await.is_some() {
                if !erase(&writers).await {
                    return;
                }
                sleep(REST).await;
            }
        });
        let erasure = Self(Some(requests));
        // What an earlier process was asked for and did not do.
        erasure.request();
        erasure
    }

    /// Erases what was committed before, soon.
    pub(crate) fn request(&self) {
        if let Some(requests) = &self.0 {
            // Full: a request waits.
            let _ = requests.try_send(());
        }
    }
}

/// Returns whether the connections are still open.
async fn erase(writers: &Connections) -> bool {
    let (mut pauses, mut is_told) = (Backoff::new(PAUSE, LONGEST_PAUSE), false);
    loop {
        match checkpoint(writers).await {
            Ok(true) => return true,
            Ok(false) => {}
            Err(error) if error.is_closed() => return false,
            Err(error) if !is_told => {
                warn!(%error, "could not empty the database's log, which contains a replaced key in sealed form");
                is_told = true;
            }
            Err(_) => {}
        }
        sleep(pauses.doubled()).await;
    }
}

/// Returns whether the log is empty now.
async fn checkpoint(writers: &Connections) -> Result<bool> {
    let mut connection = writers.acquire().await?;
    let attempt = async {
        connection.execute(NOT_BUSY).await?;
        let row = connection.fetch_one(CHECKPOINT).await?;
        connection.execute(BUSY).await?;
        Ok(row.try_get::<i64, _>(0)? == 0)
    };
    let late = || Err(StoreError::from(sqlx::Error::Io(io::ErrorKind::TimedOut.into())));
    let done = timeout(WITHIN, attempt).await.unwrap_or_else(|_| late());
    if done.is_err() {
        // It may not wait for locks any more: the next one does.
        connection.close_on_drop();
    }
    done
}
