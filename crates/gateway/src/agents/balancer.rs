//! Chooses the replica for a new stream: the one with the fewest streams among the healthy ones.
//!
//! Pure: time is an argument. A replica that fails is ejected for a time that doubles with each failure; then one stream
//! tries it. A new or returning replica gets its share of streams gradually. Invariant: while there is a replica, one is
//! chosen, even if none is healthy.

use std::time::{Duration, Instant};

/// After the first failure: about the time in which a target restarts.
const EJECTED_FIRST: Duration = Duration::from_secs(1);
/// The longest ejection: a returning replica is used within this time.
const EJECTED_LONGEST: Duration = Duration::from_secs(60);
/// The time for the one stream that tries an ejected replica: as long as a client waits.
const TRIAL: Duration = Duration::from_secs(15);
/// How long a new replica takes to get as many streams as the others.
const SLOW_START: Duration = Duration::from_secs(30);
/// Its initial part, in thousandths: it needs some streams to prove itself.
const SLOWEST: u64 = 100;

/// The results of dials through a replica, or to one share's target behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    /// Since when it has been healthy.
    pub(super) well_since: Instant,
    ejected: Option<Ejected>,
}

#[derive(Debug, Clone, Copy)]
struct Ejected {
    /// The length of the ejection.
    pause: Duration,
    until: Instant,
    /// The deadline of the stream that tries it.
    on_trial: bool,
}

/// Whether it should get streams; the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fitness {
    /// Its ejection is over: one stream may try it.
    Due,
    Well,
    Ejected,
}

impl Fitness {
    /// The fitness of a replica from that of its two parts.
    pub(super) fn of(one: Self, other: Self) -> Self {
        match (one, other) {
            (Self::Ejected, _) | (_, Self::Ejected) => Self::Ejected,
            (Self::Due, _) | (_, Self::Due) => Self::Due,
            (Self::Well, Self::Well) => Self::Well,
        }
    }
}

impl Record {
    /// A record without results.
    pub(super) fn new(now: Instant) -> Self {
        Self { well_since: now, ejected: None }
    }

    pub(super) fn worked(&mut self, now: Instant) {
        if self.ejected.take().is_some() {
            self.well_since = now;
        }
    }

    pub(super) fn failed(&mut self, now: Instant) {
        let pause = match self.ejected {
            None => EJECTED_FIRST,
            // The result of a stream that started before the ejection is not new.
            Some(Ejected { until, on_trial: false, .. }) if now < until => return,
            Some(Ejected { pause, .. }) => (pause * 2).min(EJECTED_LONGEST),
        };
        self.ejected = Some(Ejected { pause, until: now + pause, on_trial: false });
    }

    /// A stream is about to try it; others wait for its result.
    pub(super) fn try_it(&mut self, now: Instant) {
        if let Some(ejected) = self.ejected.as_mut().filter(|e| e.until <= now) {
            (ejected.until, ejected.on_trial) = (now + TRIAL, true);
        }
    }

    pub(super) fn fitness(&self, now: Instant) -> Fitness {
        match self.ejected {
            None => Fitness::Well,
            Some(ejected) if ejected.until <= now => Fitness::Due,
            Some(_) => Fitness::Ejected,
        }
    }
}

/// A replica to choose from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<T> {
    pub(super) replica: T,
    pub(super) fitness: Fitness,
    /// Its current streams.
    pub(super) streams: usize,
    pub(super) well_since: Instant,
    /// The number of the choice at which it was last chosen.
    pub(super) last_chosen: u64,
}

impl<T> Candidate<T> {
    /// Its load with one more stream, weighted by its age.
    fn load(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.well_since).min(SLOW_START);
        let part = 1000 * u64::try_from(age.as_millis()).unwrap_or(0) / SLOW_START.as_millis() as u64;
        (self.streams as u64 + 1) * 1_000_000 / part.max(SLOWEST)
    }
}

/// The fittest candidate; among equals the least loaded, then the one not chosen for longest.
pub(super) fn choose<T>(
    candidates: impl IntoIterator<Item = Candidate<T>>,
    now: Instant,
) -> Option<Candidate<T>> {
    candidates.into_iter().min_by_key(|c| (c.fitness, c.load(now), c.last_chosen))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A step of a test.
    #[derive(Debug, Clone, Copy)]
    enum Act {
        Work,
        Fail,
        Try,
    }

    /// The reference model: computes the result from the whole history.
    fn reference(history: &[(u64, Act)], now: u64) -> Fitness {
        let mut failures = 0u32;
        let (mut out_until, mut trial) = (0, false);
        for (at, act) in history {
            match act {
                Act::Work => (failures, out_until, trial) = (0, 0, false),
                Act::Fail if failures > 0 && *at < out_until && !trial => {}
                Act::Fail => {
                    failures += 1;
                    out_until = at + 1000 * 2u64.pow((failures - 1).min(6)).min(60);
                    trial = false;
                }
                Act::Try if failures > 0 && *at >= out_until => (out_until, trial) = (at + 15_000, true),
                Act::Try => {}
            }
        }
        match failures {
            0 => Fitness::Well,
            _ if now >= out_until => Fitness::Due,
            _ => Fitness::Ejected,
        }
    }

    proptest! {
        #[test]
        fn a_record_equals_the_reference(
            acts in proptest::collection::vec(
                (0u64..20_000, prop_oneof![Just(Act::Work), Just(Act::Fail), Just(Act::Fail), Just(Act::Try)]), 0..40),
            after in 0u64..70_000,
        ) {
            let start = Instant::now();
            let mut record = Record::new(start);
            let (mut at, mut history) = (0, Vec::new());
            for (pause, act) in acts {
                at += pause;
                let now = start + ms(at);
                prop_assert_eq!(record.fitness(now), reference(&history, at));
                history.push((at, act));
                match act {
                    Act::Work => record.worked(now),
                    Act::Fail => record.failed(now),
                    Act::Try => record.try_it(now),
                }
            }
            prop_assert_eq!(record.fitness(start + ms(at + after)), reference(&history, at + after));
        }

        #[test]
        fn no_candidate_is_better_than_the_chosen_one(
            all in proptest::collection::vec((0u8..3, 0usize..50, 0u64..60_000, any::<u64>()), 0..12),
        ) {
            let now = Instant::now() + ms(60_000);
            let candidates: Vec<_> = all.iter().enumerate().map(|(n, (fitness, streams, age, last_chosen))| Candidate {
                replica: n,
                fitness: [Fitness::Due, Fitness::Well, Fitness::Ejected][usize::from(*fitness)],
                streams: *streams,
                well_since: now - ms(*age),
                last_chosen: *last_chosen,
            }).collect();
            let Some(chosen) = choose(candidates.clone(), now) else {
                prop_assert!(all.is_empty());
                return Ok(());
            };
            let part = |c: &Candidate<usize>| ((now - c.well_since).as_secs_f64() / 30.0).clamp(0.1, 1.0);
            for other in &candidates {
                prop_assert!(chosen.fitness <= other.fitness);
                if other.fitness == chosen.fitness {
                    let (mine, theirs) = (
                        (chosen.streams + 1) as f64 / part(&chosen),
                        (other.streams + 1) as f64 / part(other),
                    );
                    // Except for rounding.
                    prop_assert!(mine <= theirs * 1.01 + 0.01, "{chosen:?} was chosen although {other:?} is better");
                }
            }
        }

        /// With long-lived streams, a new replica never has more than its share of the others' load.
        #[test]
        fn a_new_replica_gets_its_share_gradually(before in 1usize..2000, streams in 1usize..500, age in 0u64..30_000) {
            let start = Instant::now();
            let now = start + SLOW_START + ms(age);
            let newcomer = now - ms(age);
            let mut of = [before, 0];
            for last_chosen in 0..streams as u64 {
                let candidate = |n: usize| Candidate {
                    replica: n,
                    fitness: Fitness::Well,
                    streams: of[n],
                    well_since: [start, newcomer][n],
                    last_chosen,
                };
                of[choose([candidate(0), candidate(1)], now).unwrap().replica] += 1;
            }
            let part = (age as f64 / 30_000.0).max(0.1);
            prop_assert!(of[1] as f64 <= (of[0] + 1) as f64 * part + 1.0, "{of:?}");
            // It does not starve either.
            prop_assert!(of[1] as f64 + 2.0 >= (streams as f64).min(of[0] as f64 * part * 0.98), "{of:?}");
        }
    }

    #[test]
    fn equal_candidates_take_turns() {
        let now = Instant::now();
        let mut last = [0, 0, 0];
        let mut chosen = Vec::new();
        for turn in 1..=6 {
            let candidate = |n: usize| Candidate {
                replica: n,
                fitness: Fitness::Well,
                streams: 0,
                well_since: now,
                last_chosen: last[n],
            };
            let n = choose([candidate(0), candidate(1), candidate(2)], now).unwrap().replica;
            last[n] = turn;
            chosen.push(n);
        }
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn one_stream_at_a_time_tries_an_ejected_replica() {
        let start = Instant::now();
        let mut record = Record::new(start);
        record.failed(start);
        assert_eq!(record.fitness(start), Fitness::Ejected);
        let due = start + EJECTED_FIRST;
        assert_eq!(record.fitness(due), Fitness::Due);
        record.try_it(due);
        assert_eq!(record.fitness(due), Fitness::Ejected, "another stream does not try it");
        // The trial had no result.
        assert_eq!(record.fitness(due + TRIAL), Fitness::Due);
        record.worked(due + ms(5));
        assert_eq!((record.fitness(due), record.well_since), (Fitness::Well, due + ms(5)));
    }
}
