//! Turns: of each of many callers, a few pieces of work run at a time, so that what is costly for one of them waits for its own
//! and does not keep others waiting. After a turn, its place rests three times as long as it took, half a second at most.
//!
//! Invariant: an entry is kept only while its caller works or waits.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};
use wicketgate_system::Mutex;

/// Pieces of work of a caller that wait: each holds a connection to the API.
const MOST_WAITING: usize = 32;
/// Entries beyond which those without work are dropped.
const SWEPT: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct Turns {
    at_a_time: usize,
    of: Mutex<HashMap<String, Weak<Places>>>,
}

/// Of one caller.
#[derive(Debug)]
struct Places {
    work: Arc<Semaphore>,
    queue: Semaphore,
}

/// How often a turn's time its place rests.
const RESTS: u32 = 3;
/// The longest rest. What takes longer than this has waited for others.
const LONGEST_REST: Duration = Duration::from_millis(500);

/// A turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    place: Option<(OwnedSemaphorePermit, Arc<Places>)>,
    begun: Instant,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (place, rest) = (self.place.take(), (self.begun.elapsed() * RESTS).min(LONGEST_REST));
        // Without a runtime, the process is ending.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                sleep(rest).await;
                drop(place);
            });
        }
    }
}

impl Turns {
    /// Each caller has so many at a time.
    pub(crate) fn new(at_a_time: usize) -> Self {
        Self { at_a_time, of: Mutex::default() }
    }

    /// Waits for a turn; `None` if there is none in time, or too many wait.
    pub(crate) async fn take(&self, caller: &str, within: Duration) -> Option<Turn> {
        let places = self.places(caller);
        let waits = places.queue.try_acquire().ok()?;
        let place = timeout(within, Arc::clone(&places.work).acquire_owned()).await;
        drop(waits);
        // The semaphore is never closed.
        place.ok()?.ok().map(|place| Turn { place: Some((place, places)), begun: Instant::now() })
    }

    fn places(&self, caller: &str) -> Arc<Places> {
        let mut of = self.of.lock();
        if let Some(places) = of.get(caller).and_then(Weak::upgrade) {
            return places;
        }
        if of.len() >= SWEPT {
            of.retain(|_, places| places.strong_count() > 0);
        }
        let work = Arc::new(Semaphore::new(self.at_a_time));
        let places = Arc::new(Places { work, queue: Semaphore::new(MOST_WAITING) });
        of.insert(caller.to_owned(), Arc::downgrade(&places));
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(4);

    #[tokio::test(start_paused = true)]
    async fn a_caller_waits_for_its_own_work_and_not_for_that_of_others() {
        let turns = Turns::new(2);
        let mut own = Vec::new();
        for _ in 0..2 {
            own.push(turns.take("a", WITHIN).await.unwrap());
        }
        assert!(turns.take("a", WITHIN).await.is_none());
        assert!(turns.take("b", WITHIN).await.is_some());
        let waiting = turns.take("a", WITHIN);
        tokio::pin!(waiting);
        assert!(timeout(WITHIN / 2, &mut waiting).await.is_err());
        own.pop();
        assert!(timeout(LONGEST_REST / 2, &mut waiting).await.is_err(), "the place rests");
        assert!(timeout(LONGEST_REST, &mut waiting).await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_nothing_is_forgotten() {
        let turns = Turns::new(2);
        let _kept = turns.take("kept", WITHIN).await.unwrap();
        for n in 0..2 * SWEPT {
            drop(turns.take(&n.to_string(), WITHIN).await.unwrap());
            sleep(Duration::from_millis(1)).await;
        }
        let of = turns.of.lock();
        assert!(of.len() <= SWEPT + 1 && of.contains_key("kept"));
    }
}
