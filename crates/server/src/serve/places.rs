//! Places of connections: how many there are at a time, and which one ends for a newer one.
//!
//! Invariants: there are never more connections than places, and one address has never more than a quarter of them, unless it is a
//! trusted proxy's. If all are taken, the newest connection gets the place of another: first one whose client has not
//! authenticated, then one whose client has; of each kind one of the address with the most, and of these the oldest. A
//! connection that carries out a request of an authenticated client is never ended, and no longer kept than [`READ_WITHIN`] while
//! that client reads the answer. Answers that wait for their readers have no more than so many bytes: beyond that the address
//! with the most loses its oldest one.

use crate::{external::ExternalAddress, telemetry::ServerMetrics};
use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};
use tokio::{
    sync::Notify,
    time::{Duration, Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use wicketgate_model::one_client;
use wicketgate_system::Mutex;

/// An answer is read within this time, or its connection may end for another one. A page of the largest kind takes a line of 20 Mbit/s so long.
pub(crate) const READ_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of all answers that wait for their readers: several of the largest pages, and thousands of usual ones.
pub(crate) const UNREAD: u64 = 128 << 20;
/// Between two looks whether an answer is read too slowly.
const LOOK: Duration = Duration::from_secs(1);

/// The part of all places that one address may have: three such addresses leave room for others.
const PART_OF_SOURCE: usize = 4;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    of_source: usize,
    proxies: Arc<ExternalAddress>,
    metrics: Arc<ServerMetrics>,
    /// By their number: the oldest first.
    taken: Mutex<Taken>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    places: BTreeMap<u64, Held>,
    last: u64,
}

#[derive(Debug)]
struct Held {
    source: IpAddr,
    /// A request of it has authenticated.
    is_known: bool,
    /// Requests that are being carried out, until their answers have been taken: one, since HTTP/1.1 has an order.
    requests: u32,
    /// Since when its client reads an answer, and how many bytes that has.
    reads: Option<(Instant, u64)>,
    lost: CancellationToken,
}

/// What a connection loses its place for, in this order. Nothing ends for the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// Says nothing, or has been answered, and has not authenticated.
    Silent,
    /// A client's that has authenticated, and is between two requests.
    Idle,
    /// Is read too slowly.
    Slow,
    /// Carries out a request without an authenticated client, such as one whose body does not arrive.
    Stranger,
    Working,
}

/// Whether a place will be free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// A connection was told to end.
    Begun,
    /// One was told before.
    Already,
    /// All are at work.
    Nothing,
}

/// Why a connection has no place yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    /// One will be free when a connection has ended, or a request was carried out.
    ForNow,
    /// Its address has as many as it may have, all of them at work.
    OfSource,
}

/// The place of a connection, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Berth {
    connection: Connection,
    /// Cancelled when the connection has to end for a newer one.
    pub(crate) lost: CancellationToken,
}

/// The connection of a place, for what carries out its requests. It may have ended.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
    number: u64,
}

/// A request of a connection that is being carried out, until it is dropped.
#[derive(Debug)]
pub(crate) struct Working(Connection);

impl Places {
    /// `most` at a time.
    pub(crate) fn new(most: usize, proxies: Arc<ExternalAddress>, metrics: Arc<ServerMetrics>) -> Self {
        let of_source = (most / PART_OF_SOURCE).max(1);
        let (taken, freed) = (Mutex::default(), Notify::new());
        Self(Arc::new(Shared { most, of_source, proxies, metrics, taken, freed }))
    }

    /// A place for a connection from the address, as soon as there is one. `None`: its address has too many.
    pub(crate) async fn enter(&self, address: IpAddr) -> Option<Berth> {
        loop {
            // Registered before the look, so that no place is freed in between unnoticed.
            let freed = self.0.freed.notified();
            match self.try_enter(address) {
                Ok(place) => return Some(place),
                Err(Full::OfSource) => return None,
                // Or an answer is read too slowly by then.
                Err(Full::ForNow) => drop(timeout(LOOK, freed).await),
            }
        }
    }

    fn try_enter(&self, address: IpAddr) -> Result<Berth, Full> {
        let source = one_client(address);
        let mut taken = self.0.taken.lock();
        let of_source = taken.places.values().filter(|held| held.source == source).count();
        if of_source >= self.0.of_source && !self.0.proxies.is_proxy(address) {
            let ending = taken.end_one(Some(source));
            if ending != Ending::Already {
                self.0.metrics.connection_ended("address");
            }
            return Err(if ending == Ending::Nothing { Full::OfSource } else { Full::ForNow });
        }
        if taken.places.len() >= self.0.most {
            if taken.end_one(None) == Ending::Begun {
                self.0.metrics.connection_ended("full");
            }
            return Err(Full::ForNow);
        }
        taken.last += 1;
        let (number, lost) = (taken.last, CancellationToken::new());
        taken
            .places
            .insert(number, Held { source, is_known: false, requests: 0, reads: None, lost: lost.clone() });
        Ok(Berth { connection: Connection { shared: Arc::clone(&self.0), number }, lost })
    }
}

impl Taken {
    /// Ends a connection, of `source` only if it is given, unless one is ending already.
    fn end_one(&mut self, source: Option<IpAddr>) -> Ending {
        let among = |held: &&Held| source.is_none_or(|source| held.source == source);
        if self.places.values().filter(among).any(|held| held.lost.is_cancelled()) {
            return Ending::Already;
        }
        let worth = self.places.values().filter(among).map(Held::worth).min();
        let Some(worth) = worth.filter(|worth| *worth != Worth::Working) else { return Ending::Nothing };
        let candidates = || self.places.values().filter(among).filter(|held| held.worth() == worth);
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        candidates().for_each(|held| *counts.entry(held.source).or_default() += 1);
        let most = counts.values().copied().max();
        let oldest = candidates().find(|held| counts.get(&held.source).copied() == most);
        oldest.inspect(|held| held.lost.cancel()).map_or(Ending::Nothing, |_| Ending::Begun)
    }
}

impl Taken {
    /// Ends the oldest answer of the address with the most, until all have no more bytes than they may.
    fn end_unread(&mut self) -> bool {
        let mut is_ended = false;
        loop {
            let unread = || {
                let held = self.places.values().filter(|held| !held.lost.is_cancelled());
                held.filter_map(|held| Some((held, held.reads?.1)))
            };
            if unread().map(|(_, bytes)| bytes).sum::<u64>() <= UNREAD {
                return is_ended;
            }
            let mut sums: HashMap<IpAddr, u64> = HashMap::new();
            unread().for_each(|(held, bytes)| *sums.entry(held.source).or_default() += bytes);
            let most = sums.values().copied().max();
            let oldest = unread().find(|(held, _)| sums.get(&held.source).copied() == most);
            let Some((held, _)) = oldest else { return is_ended };
            held.lost.cancel();
            is_ended = true;
        }
    }
}

impl Held {
    fn worth(&self) -> Worth {
        if self.is_known && self.reads.is_some_and(|(since, _)| since.elapsed() >= READ_WITHIN) {
            return Worth::Slow;
        }
        match (self.requests > 0, self.is_known) {
            (false, false) => Worth::Silent,
            (false, true) => Worth::Idle,
            (true, false) => Worth::Stranger,
            (true, true) => Worth::Working,
        }
    }
}

impl Berth {
    pub(crate) fn connection(&self) -> Connection {
        self.connection.clone()
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        let Connection { shared, number } = &self.connection;
        shared.taken.lock().places.remove(number);
        shared.freed.notify_waiters();
    }
}

impl Connection {
    /// Its client has authenticated.
    pub(crate) fn is_known(&self) {
        self.change(|held| held.is_known = true);
    }

    /// Begins to carry out a request.
    pub(crate) fn works(&self) -> Working {
        self.change(|held| held.requests += 1);
        Working(self.clone())
    }

    fn change(&self, change: impl FnOnce(&mut Held)) {
        self.shared.taken.lock().places.get_mut(&self.number).map(change);
    }
}

impl Working {
    /// Its answer waits for its reader, with so many bytes. One without an end is carried out until then.
    pub(crate) fn is_answered(&self, bytes: Option<u64>) {
        let Some(bytes) = bytes else { return };
        self.0.change(|held| held.reads = Some((Instant::now(), bytes)));
        let Shared { taken, metrics, .. } = &*self.0.shared;
        if taken.lock().end_unread() {
            metrics.connection_ended("unread");
        }
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.change(|held| (held.requests, held.reads) = (held.requests.saturating_sub(1), None));
        // It may be one now that ends for another.
        self.0.shared.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;
    use proptest::prelude::*;

    const MOST: usize = 16;
    const OF_SOURCE: usize = MOST / PART_OF_SOURCE;

    fn places() -> Places {
        let proxies = ExternalAddress { trusted_proxies: vec!["192.0.2.100".parse().unwrap()], url: None };
        Places::new(MOST, Arc::new(proxies), ServerMetrics::new(&mut Registry::default()))
    }

    fn source(n: usize) -> IpAddr {
        IpAddr::from([192, 0, 2, u8::try_from(n).unwrap()])
    }

    /// Enters as the accept loop does: what has to end ends at once.
    fn enter(places: &Places, held: &mut Vec<Berth>, address: IpAddr) -> bool {
        for _ in 0..2 {
            match places.try_enter(address) {
                Ok(place) => {
                    held.push(place);
                    return true;
                }
                Err(Full::OfSource) => return false,
                Err(Full::ForNow) => held.retain(|place| !place.lost.is_cancelled()),
            }
        }
        false
    }

    fn numbers(held: &[Berth]) -> Vec<u64> {
        held.iter().map(|place| place.connection.number).collect()
    }

    #[test]
    fn the_newest_of_an_address_replaces_its_oldest_that_is_silent() {
        let (places, mut held) = (places(), Vec::new());
        for _ in 0..OF_SOURCE {
            assert!(enter(&places, &mut held, source(1)));
        }
        held[0].connection().is_known();
        assert!(enter(&places, &mut held, source(1)));
        assert_eq!(numbers(&held), [1, 3, 4, 5], "the first has authenticated");
        let mut working: Vec<_> = held.iter().map(|place| place.connection().works()).collect();
        assert!(enter(&places, &mut held, source(1)), "those of strangers end, too");
        assert_eq!(numbers(&held), [1, 4, 5, 6]);
        held.iter().for_each(|place| place.connection().is_known());
        working.extend(held.iter().map(|place| place.connection().works()));
        assert!(!enter(&places, &mut held, source(1)) && enter(&places, &mut held, source(2)));
        drop(working);
        assert!(enter(&places, &mut held, source(1)), "one that is between two requests ends");
        assert_eq!(numbers(&held), [4, 5, 6, 7, 8]);
    }

    #[test]
    fn when_all_are_taken_the_address_with_the_most_silent_ones_loses_one() {
        let (places, mut held) = (places(), Vec::new());
        for n in [1, 2, 3, 3, 3, 100, 100, 100, 100, 100, 100, 4, 4, 5, 5, 6] {
            assert!(enter(&places, &mut held, source(n)), "a proxy has more than others");
        }
        let _working: Vec<_> = (0..3).map(|n| held[5 + n].connection().works()).collect();
        held[5..8].iter().for_each(|place| place.connection().is_known());
        assert!(enter(&places, &mut held, source(7)));
        assert!(!numbers(&held).contains(&3) && held.len() == MOST, "{:?}", numbers(&held));
    }

    #[tokio::test]
    async fn a_connection_waits_while_all_are_at_work() {
        let (places, mut held) = (places(), Vec::new());
        for n in 0..MOST {
            assert!(enter(&places, &mut held, source(n)));
        }
        held.iter().for_each(|place| place.connection().is_known());
        let mut working: Vec<_> = held.iter().map(|place| place.connection().works()).collect();
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.enter(source(50)).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        working.remove(0);
        let lost = held.remove(0);
        timeout(Duration::from_secs(5), lost.lost.cancelled()).await.unwrap();
        drop(lost);
        assert!(timeout(Duration::from_secs(5), waiting).await.unwrap().unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_read_too_slowly_ends_for_another_connection() {
        let (places, mut held) = (places(), Vec::new());
        for n in 0..MOST {
            assert!(enter(&places, &mut held, source(n)));
        }
        held.iter().for_each(|place| place.connection().is_known());
        let working: Vec<_> = held.iter().map(|place| place.connection().works()).collect();
        // One without an end, and one that is carried out, are not read slowly.
        working[0].is_answered(None);
        working[2..].iter().for_each(|working| working.is_answered(Some(1000)));
        tokio::time::advance(READ_WITHIN / 2).await;
        assert!(!enter(&places, &mut held, source(50)));
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.enter(source(50)).await }
        });
        timeout(READ_WITHIN, held[2].lost.cancelled()).await.unwrap();
        assert!(!held[0].lost.is_cancelled() && !held[1].lost.is_cancelled());
        drop(held.remove(2));
        assert!(timeout(READ_WITHIN, waiting).await.unwrap().unwrap().is_some());
    }

    #[test]
    fn unread_answers_have_a_bound_and_who_has_most_of_it_loses() {
        let (places, mut held) = (places(), Vec::new());
        for n in [1, 1, 2, 3] {
            assert!(enter(&places, &mut held, source(n)));
        }
        let working: Vec<_> = held.iter().map(|place| place.connection().works()).collect();
        let lost = || held.iter().map(|place| place.lost.is_cancelled()).collect::<Vec<_>>();
        for one in &working[..3] {
            one.is_answered(Some(UNREAD / 4));
        }
        assert_eq!(lost(), [false; 4]);
        working[3].is_answered(Some(UNREAD / 4 + 1));
        assert_eq!(lost(), [true, false, false, false], "the oldest of the address with two");
        // What was read is not counted.
        drop(working);
        let again: Vec<_> = held.iter().map(|place| place.connection().works()).collect();
        again[3].is_answered(Some(UNREAD));
        assert_eq!(lost(), [true, false, false, false]);
        again[2].is_answered(Some(1));
        assert_eq!(lost(), [true, false, false, true]);
    }

    proptest! {
        #[test]
        fn limits_hold_and_only_work_of_the_known_refuses_a_connection(
            steps in proptest::collection::vec((0_u8..5, 0_usize..6, 0_usize..MOST), 1..300),
        ) {
            let (places, mut held, mut working) = (places(), Vec::<Berth>::new(), HashMap::new());
            for (step, from, which) in steps {
                let chosen = held.get(which).map(|place| place.connection());
                match (step, chosen) {
                    (0..2, _) => {
                        let known: Vec<_> = numbers(&held).into_iter().filter(|n| {
                            places.0.taken.lock().places[n].worth() == Worth::Working
                        }).collect();
                        let is_in = enter(&places, &mut held, source(from));
                        let taken = places.0.taken.lock();
                        prop_assert!(known.iter().all(|n| taken.places.contains_key(n)), "work was ended");
                        let works = |of: Option<IpAddr>| taken.places.values()
                            .filter(|held| of.is_none_or(|of| held.source == of) && held.worth() == Worth::Working).count();
                        let is_full_of_work = works(None) == MOST || works(Some(source(from))) == OF_SOURCE;
                        prop_assert_eq!(is_in, !is_full_of_work);
                    }
                    (2, Some(connection)) => connection.is_known(),
                    (3, Some(connection)) => { working.insert(connection.number, connection.works()); }
                    (_, Some(connection)) => { working.remove(&connection.number); }
                    (_, None) => {}
                }
                let taken = places.0.taken.lock();
                prop_assert!(taken.places.len() <= MOST);
                for n in 0..6 {
                    let of_source = taken.places.values().filter(|held| held.source == source(n)).count();
                    prop_assert!(of_source <= OF_SOURCE);
                }
            }
        }
    }
}
