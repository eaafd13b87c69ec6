//! The event feed: each event that was written reaches every subscriber, and is read once for all of them.
//!
//! Invariant: a reader that subscribes and then reads the table misses nothing: what the feed skips while it has no
//! subscriber is in the table by then. Numbers only increase, unless the database loses transactions: then subscribers are told
//! to read everything again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::error;
use wicketgate_model::{FrontdoorId, QuotaKind, QuotaLimit};
use wicketgate_store::{EventRow, Store, StoreError};
use wicketgate_system::Mutex;

use crate::{
    background::{BackgroundTask, Outcome},
    error::ApiError,
};

/// Events of other servers on the same database arrive this late.
const PERIOD: Duration = Duration::from_secs(1);
/// Events that a subscriber may be behind before it is cut: the burst of a gateway's restart.
const BEHIND: usize = 4096;
/// Rows of one read.
const READ: u32 = 1000;
/// For one read of the table. A longer one hangs at a database that is gone.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// For the first read of the table after a start.
const BEGIN_WITHIN: Duration = Duration::from_secs(5);
/// Subscribers at one time: each is a connection and some kilobytes.
const READERS: usize = 128;
/// Of these, at most so many of one organization: whatever the quotas of its Frontdoors add up to, others find a place.
const READERS_OF_ORGANIZATION: usize = READERS / 2;

/// What subscribers are told.
#[derive(Debug, Clone)]
pub(crate) enum FeedMessage {
    Event(Arc<EventRow>),
    /// The database has lost events that were sent: this is the newest one that it has.
    Reset(u64),
}

/// The Frontdoors that have subscribers, and how many: few, since all are [`READERS`].
type Following = HashMap<FrontdoorId, Followers>;

#[derive(Debug)]
struct Followers {
    organization: String,
    count: usize,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct EventFeed {
    store: Store,
    sender: broadcast::Sender<FeedMessage>,
    readers: Arc<Semaphore>,
    following: Arc<Mutex<Following>>,
    /// Set once the feed knows its first event: an earlier subscriber could miss events that it takes for old.
    begun: CancellationToken,
    /// The server stops.
    over: CancellationToken,
}

/// One subscriber's place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    following: Arc<Mutex<Following>>,
    frontdoor: FrontdoorId,
    _place: OwnedSemaphorePermit,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut following = self.following.lock();
        if let Some(followers) = following.get_mut(&self.frontdoor) {
            followers.count -= 1;
            if followers.count == 0 {
                following.remove(&self.frontdoor);
            }
        }
    }
}

impl EventFeed {
    /// Ends with `over`.
    pub(crate) fn new(store: Store, over: CancellationToken) -> Self {
        let (sender, readers) = (broadcast::Sender::new(BEHIND), Arc::new(Semaphore::new(READERS)));
        Self { store, sender, readers, following: Arc::default(), begun: CancellationToken::new(), over }
    }

    /// How many follow the events of a Frontdoor.
    pub(crate) fn followers(&self, frontdoor: FrontdoorId) -> u64 {
        self.following.lock().get(&frontdoor).map_or(0, |followers| followers.count as u64)
    }

    /// `most`: for this Frontdoor.
    pub(crate) fn enter(
        &self,
        frontdoor: FrontdoorId,
        organization: &str,
        most: QuotaLimit,
    ) -> Result<Subscription, ApiError> {
        let place = Arc::clone(&self.readers).try_acquire_owned().map_err(|_| {
            ApiError::too_many_requests("Too many clients follow events and logs; try again later")
        })?;
        let mut following = self.following.lock();
        let count = following.get(&frontdoor).map_or(0, |followers| followers.count);
        if count >= usize::try_from(most.get()).unwrap_or(usize::MAX) {
            let kind = QuotaKind::EventStreams;
            return Err(ApiError::too_many_requests(format!(
                "The quota of {} of the Frontdoor {frontdoor} is used up: limit {most}, in use {count}. End clients that \
                 follow its events or logs, or ask the operator to raise it",
                kind.words()
            )));
        }
        let of_organization = following.values().filter(|followers| followers.organization == organization);
        if of_organization.map(|followers| followers.count).sum::<usize>() >= READERS_OF_ORGANIZATION {
            return Err(ApiError::too_many_requests(format!(
                "{READERS_OF_ORGANIZATION} clients follow events or logs of the organization {organization}, as many as \
                 one may have. End some of them, at any of its Frontdoors"
            )));
        }
        let followers = Followers { organization: organization.to_owned(), count: count + 1 };
        following.insert(frontdoor, followers);
        Ok(Subscription { following: Arc::clone(&self.following), frontdoor, _place: place })
    }

    /// `None`: the feed cannot begin, because the database does not answer.
    pub(crate) async fn subscribe(&self) -> Option<broadcast::Receiver<FeedMessage>> {
        timeout(BEGIN_WITHIN, self.begun.cancelled()).await.ok()?;
        Some(self.sender.subscribe())
    }

    pub(crate) fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// Sends what is newer than `since`, the newest event that was sent.
    async fn feed(&self, since: &mut Option<u64>) -> Result<(), StoreError> {
        // Before the subscribers are counted: see the module.
        let newest = self.store.event_span().await?.newest;
        let since = since.get_or_insert(newest);
        self.begun.cancel();
        if newest < *since {
            error!(
                sent = *since,
                newest,
                "the database has lost events that clients have received, as after a failover to a PostgreSQL server without the \
                 last transactions: clients are told to read everything again. Run `wicketgate restore --in-place`, as \
                 DATABASE.md says under \"After a failover\""
            );
            *since = newest;
            let _ = self.sender.send(FeedMessage::Reset(newest));
        }
        if self.sender.receiver_count() == 0 {
            *since = newest;
        }
        while *since < newest {
            let events = self.store.events(None, *since, READ).await?;
            *since = events.last().map_or(newest, |last| last.id);
            for event in events {
                let _ = self.sender.send(FeedMessage::Event(Arc::new(event)));
            }
        }
        Ok(())
    }
}

/// Reads for all subscribers.
#[derive(Debug)]
pub(crate) struct EventReader {
    pub(crate) feed: EventFeed,
    pub(crate) since: Option<u64>,
}

impl BackgroundTask for EventReader {
    const NAME: &'static str = "event-feed";
    const PERIOD: Duration = PERIOD;
    const WITHIN: Duration = READ_WITHIN;

    async fn signal(&self) {
        self.feed.store.events_written().await;
    }

    async fn activate(&mut self, _now: Timestamp) -> anyhow::Result<Outcome> {
        self.feed.feed(&mut self.since).await?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[tokio::test]
    async fn subscribers_are_told_that_the_database_has_lost_events() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("db");
        let keys = wicketgate_store::SecretKeyFile::created_at(dir.path().join("secret-key"));
        let store = Store::open(&file.display().to_string(), &keys).await.unwrap();
        let newest = |number: u64| {
            let script = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=10)\n\
                          db.execute('UPDATE event_sequence SET newest = ?', (int(sys.argv[2]),)); db.commit()";
            let mut python = std::process::Command::new("python3");
            assert!(
                python.args(["-c", script]).arg(&file).arg(number.to_string()).status().unwrap().success()
            );
        };
        let (feed, mut since) = (EventFeed::new(store, CancellationToken::new()), None);
        newest(9);
        feed.feed(&mut since).await.unwrap();
        let mut told = feed.subscribe().await.unwrap();
        newest(5);
        feed.feed(&mut since).await.unwrap();
        assert!(matches!(told.try_recv(), Ok(FeedMessage::Reset(5))));
        assert_eq!(since, Some(5));
        feed.feed(&mut since).await.unwrap();
        assert!(told.try_recv().is_err(), "it is told once");
    }

    #[tokio::test]
    async fn readers_are_limited_per_frontdoor_per_organization_and_in_total() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(
            &dir.path().join("db").display().to_string(),
            &wicketgate_store::SecretKeyFile::created_at(dir.path().join("secret-key")),
        )
        .await
        .unwrap();
        let feed = EventFeed::new(store, CancellationToken::new());
        let most = QuotaKind::EventStreams.default_limit();
        let enter = |n, organization| feed.enter(FrontdoorId::new(Uuid::from_u128(n)), organization, most);
        let mut places: Vec<_> = (0..most.get()).map(|_| enter(1, "a").unwrap()).collect();
        assert!(enter(1, "a").is_err());
        places.push(enter(2, "a").unwrap());
        places.remove(0);
        places.push(enter(1, "a").unwrap());
        // As many Frontdoors as it may have take half of the places, and another organization has the rest.
        places.extend((3..=50).filter_map(|n| enter(n, "a").ok()));
        let of_one = places.len();
        let error = format!("{:?}", enter(51, "a").unwrap_err());
        assert!(error.contains("organization a"), "{error}");
        places.extend((101..).map_while(|n| enter(n, "b").ok()));
        assert_eq!((of_one, places.len()), (READERS / 2, READERS));
        drop(places);
        assert!(feed.following.lock().is_empty());
    }
}
