//! The feed: each event that was written reaches everybody who follows, and is read once for all of them.
//!
//! Invariant: a reader that subscribes and then reads the table misses nothing: what the feed skips while nobody
//! follows is in the table by then.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use wicketgate_store::{EventRow, Store, StoreError};

/// Other servers of the same database are noticed this late.
const PERIOD: Duration = Duration::from_secs(1);
/// Events that a reader may be behind before it is cut: a burst of a gateway's restart.
const BEHIND: usize = 4096;
/// Rows of one read.
const READ: u32 = 1000;
/// For the first look at the table after a start.
const BEGIN_WITHIN: Duration = Duration::from_secs(5);
/// Who follows at one time: each is a connection and some kilobytes.
const READERS: usize = 128;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed {
    sender: broadcast::Sender<Arc<EventRow>>,
    readers: Arc<Semaphore>,
    /// The feed knows from where on it tells: whoever subscribes before that could miss what it takes for old.
    begun: CancellationToken,
    /// The server stops.
    over: CancellationToken,
}

impl Feed {
    pub fn new(over: CancellationToken) -> Self {
        let (sender, readers) = (broadcast::Sender::new(BEHIND), Arc::new(Semaphore::new(READERS)));
        Self { sender, readers, begun: CancellationToken::new(), over }
    }

    /// `None`: too many follow already.
    pub(crate) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.readers).try_acquire_owned().ok()
    }

    /// `None`: the feed can't begin now, since the database does not answer.
    pub(crate) async fn subscribe(&self) -> Option<broadcast::Receiver<Arc<EventRow>>> {
        timeout(BEGIN_WITHIN, self.begun.cancelled()).await.ok()?;
        Some(self.sender.subscribe())
    }

    pub(crate) fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// Feeds until the server stops.
    pub async fn run(self, store: Store) {
        let mut seen = None;
        let mut failing = false;
        while !self.over.is_cancelled() {
            let fed = self.feed(&store, &mut seen).await;
            if let (Err(error), false) = (&fed, failing) {
                warn!(%error, "could not read events; trying again every second");
            }
            failing = fed.is_err();
            tokio::select! {
                () = store.events_written() => {}
                () = tokio::time::sleep(PERIOD) => {}
                () = self.over.cancelled() => return,
            }
        }
    }

    async fn feed(&self, store: &Store, seen: &mut Option<u64>) -> Result<(), StoreError> {
        // Before the look at who follows: see the module.
        let newest = store.event_span().await?.newest;
        let since = seen.get_or_insert(newest);
        self.begun.cancel();
        if self.sender.receiver_count() == 0 {
            *since = newest;
        }
        while *since < newest {
            let events = store.events(None, *since, READ).await?;
            *since = events.last().map_or(newest, |last| last.id);
            for event in events {
                let _ = self.sender.send(Arc::new(event));
            }
        }
        Ok(())
    }
}
