//! Turns: of each of many callers, a few pieces of work run at a time, so that what is costly for one of them waits for its own
//! and does not keep others waiting.
//!
//! Invariant: an entry is kept only while its caller works or waits.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use wicketgate_system::Mutex;

/// Entries beyond which those without work are dropped.
const SWEPT: usize = 256;

/// See the module.
#[derive(Debug)]
pub(crate) struct Turns {
    at_a_time: usize,
    of: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _place: OwnedSemaphorePermit,
}

impl Turns {
    /// Each caller has so many at a time.
    pub(crate) fn new(at_a_time: usize) -> Self {
        Self { at_a_time, of: Mutex::default() }
    }

    /// Waits for a turn; `None` if there is none in time.
    pub(crate) async fn take(&self, caller: &str, within: Duration) -> Option<Turn> {
        let place = timeout(within, self.places(caller).acquire_owned()).await;
        // The semaphore is never closed.
        place.ok()?.ok().map(|place| Turn { _place: place })
    }

    fn places(&self, caller: &str) -> Arc<Semaphore> {
        let mut of = self.of.lock();
        if let Some(places) = of.get(caller).and_then(Weak::upgrade) {
            return places;
        }
        if of.len() >= SWEPT {
            of.retain(|_, places| places.strong_count() > 0);
        }
        let places = Arc::new(Semaphore::new(self.at_a_time));
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
        assert!(timeout(WITHIN / 4, &mut waiting).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn who_does_nothing_is_forgotten() {
        let turns = Turns::new(2);
        let _kept = turns.take("kept", WITHIN).await.unwrap();
        for n in 0..2 * SWEPT {
            turns.take(&n.to_string(), WITHIN).await.unwrap();
        }
        let of = turns.of.lock();
        assert!(of.len() <= SWEPT + 1 && of.contains_key("kept"));
    }
}
