//! The feed: each event that was written reaches everybody who follows, and is read once for all of them.
//!
//! Invariant: a reader that subscribes and then reads the table misses nothing: what the feed skips while nobody
//! follows is in the table by then.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use wicketgate_model::FrontdoorId;
use wicketgate_store::{EventRow, Store, StoreError};
use wicketgate_system::{Mutex, Outage};

/// Other servers of the same database are noticed this late.
const PERIOD: Duration = Duration::from_secs(1);
/// Events that a reader may be behind before it is cut: a burst of a gateway's restart.
const BEHIND: usize = 4096;
/// Rows of one read.
const READ: u32 = 1000;
/// For one look at the table. What is longer hangs at a database that is gone.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// For the first look at the table after a start.
const BEGIN_WITHIN: Duration = Duration::from_secs(5);
/// Who follows at one time: each is a connection and some kilobytes.
const READERS: usize = 128;
/// Of them, who follows one Frontdoor: no customer takes all the places.
const READERS_EACH: usize = 32;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Feed {
    sender: broadcast::Sender<Arc<EventRow>>,
    readers: Arc<Semaphore>,
    /// How many follow each Frontdoor that is followed.
    following: Arc<Mutex<HashMap<FrontdoorId, usize>>>,
    /// The feed knows from where on it tells: whoever subscribes before that could miss what it takes for old.
    begun: CancellationToken,
    /// The server stops.
    over: CancellationToken,
}

/// One reader's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    following: Arc<Mutex<HashMap<FrontdoorId, usize>>>,
    frontdoor: FrontdoorId,
    _place: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut following = self.following.lock();
        if let Some(count) = following.get_mut(&self.frontdoor) {
            *count -= 1;
            if *count == 0 {
                following.remove(&self.frontdoor);
            }
        }
    }
}

impl Feed {
    pub fn new(over: CancellationToken) -> Self {
        let (sender, readers) = (broadcast::Sender::new(BEHIND), Arc::new(Semaphore::new(READERS)));
        Self { sender, readers, following: Arc::default(), begun: CancellationToken::new(), over }
    }

    /// `None`: too many follow already, this Frontdoor or all together.
    pub(crate) fn enter(&self, frontdoor: FrontdoorId) -> Option<Place> {
        let place = Arc::clone(&self.readers).try_acquire_owned().ok()?;
        let mut following = self.following.lock();
        let count = following.entry(frontdoor).or_default();
        if *count == READERS_EACH {
            return None;
        }
        *count += 1;
        Some(Place { following: Arc::clone(&self.following), frontdoor, _place: place })
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
        let mut outage = Outage::default();
        while !self.over.is_cancelled() {
            let fed = timeout(READ_WITHIN, self.feed(&store, &mut seen)).await;
            let fed = fed.unwrap_or(Err(StoreError::Late));
            match fed {
                Err(error) if outage.failed() => warn!(%error, "cannot read events; retrying every second"),
                Err(_) => {}
                Ok(()) if outage.recovered() => info!("events are read again"),
                Ok(()) => {}
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[tokio::test]
    async fn no_frontdoor_takes_the_places_of_others() {
        let feed = Feed::new(CancellationToken::new());
        let frontdoor = |n| FrontdoorId::new(Uuid::from_u128(n));
        let mut places: Vec<_> = (0..READERS_EACH).map(|_| feed.enter(frontdoor(1)).unwrap()).collect();
        assert!(feed.enter(frontdoor(1)).is_none());
        places.push(feed.enter(frontdoor(2)).unwrap());
        places.remove(0);
        places.push(feed.enter(frontdoor(1)).unwrap());
        for n in 3.. {
            match feed.enter(frontdoor(n)) {
                Some(place) => places.push(place),
                None => break,
            }
        }
        assert_eq!(places.len(), READERS);
        drop(places);
        assert!(feed.following.lock().is_empty());
    }
}
