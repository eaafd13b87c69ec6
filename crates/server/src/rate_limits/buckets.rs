//! Token buckets, one for each key.
//!
//! A bucket is kept as the time at which it is full again (the virtual scheduling of GCRA, ITU-T I.371): one number, and
//! nothing for a bucket that is full.
//!
//! Invariant: there are never more than [`MOST`] buckets. Too many give up those that are full, and then the fullest ones:
//! they forget the least.

use std::{collections::HashMap, hash::Hash, num::NonZeroU32, time::Duration};
use tokio::time::Instant;

/// More callers and sources than are in use at a time, in a megabyte.
pub(crate) const MOST: usize = 4096;

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// In which one token arrives.
    interval: Duration,
    /// For a full bucket.
    depth: Duration,
}

impl Rate {
    /// A full bucket has `burst` tokens, and `number` arrive in a second.
    pub(crate) fn per_second(number: NonZeroU32, burst: NonZeroU32) -> Self {
        let interval = Duration::from_secs(1) / number.get();
        Self { interval, depth: interval * burst.get() }
    }

    /// A full bucket has `number` tokens, and as many arrive within the window.
    pub(crate) const fn within(window: Duration, number: u32) -> Self {
        // A division by zero is an error of the constant that calls this.
        Self { interval: Duration::from_nanos(window.as_nanos() as u64 / number as u64), depth: window }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    full_at: HashMap<K, Instant>,
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self { full_at: HashMap::new() }
    }
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// Takes a token. Without one, nothing changes, and the error is the time until there is one.
    pub(crate) fn take(&mut self, key: K, rate: Rate, now: Instant) -> Result<(), Duration> {
        let full_at = self.after(&key, rate, now)?;
        if self.full_at.len() >= MOST && !self.full_at.contains_key(&key) {
            self.give_up(now);
        }
        self.full_at.insert(key, full_at);
        Ok(())
    }

    /// Whether there is a token to take; the error is as that of [`Self::take`].
    pub(crate) fn has(&self, key: &K, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.after(key, rate, now).map(|_| ())
    }

    /// When the bucket would be full after a token was taken.
    fn after(&self, key: &K, rate: Rate, now: Instant) -> Result<Instant, Duration> {
        let full_at = self.full_at.get(key).copied().unwrap_or(now).max(now) + rate.interval;
        match full_at.duration_since(now).checked_sub(rate.depth) {
            None | Some(Duration::ZERO) => Ok(full_at),
            Some(missing) => Err(missing),
        }
    }

    /// An eighth at a time, so that a flood of keys does not look at all of them for each.
    fn give_up(&mut self, now: Instant) {
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() >= MOST {
            let mut times: Vec<_> = self.full_at.values().copied().collect();
            let (_, fullest, _) = times.select_nth_unstable(MOST / 8);
            let fullest = *fullest;
            self.full_at.retain(|_, full_at| *full_at > fullest);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.full_at.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A bucket as it is usually written: tokens in it, in the time in which they arrive.
    struct Reference {
        tokens: Duration,
        at: Instant,
    }

    impl Reference {
        fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
            self.tokens = (self.tokens + now.duration_since(self.at)).min(rate.depth);
            self.at = now;
            match self.tokens.checked_sub(rate.interval) {
                Some(left) => {
                    self.tokens = left;
                    Ok(())
                }
                None => Err(rate.interval - self.tokens),
            }
        }
    }

    proptest! {
        #[test]
        fn a_bucket_admits_what_the_reference_admits_and_says_when_it_will(
            number in 1_u32..2000,
            burst in 1_u32..50,
            steps in proptest::collection::vec((0_usize..3, 0_u64..20, any::<bool>()), 1..200),
        ) {
            let rate = Rate::per_second(NonZeroU32::new(number).unwrap(), NonZeroU32::new(burst).unwrap());
            let mut now = Instant::now();
            let mut buckets = Buckets::default();
            let mut reference: Vec<_> = (0..3).map(|_| Reference { tokens: rate.depth, at: now }).collect();
            for (key, quarters, waits) in steps {
                now += rate.interval / 4 * u32::try_from(quarters).unwrap();
                let expected = reference[key].take(rate, now);
                prop_assert_eq!(buckets.has(&key, rate, now), expected);
                prop_assert_eq!(buckets.take(key, rate, now), expected);
                if let (Err(missing), true) = (expected, waits) {
                    let early = now + missing - Duration::from_nanos(1);
                    prop_assert!(buckets.has(&key, rate, early).is_err());
                    now += missing;
                    prop_assert_eq!(buckets.take(key, rate, now), Ok(()));
                    prop_assert_eq!(reference[key].take(rate, now), Ok(()));
                }
            }
        }
    }

    #[test]
    fn there_are_never_more_buckets_than_the_most() {
        let rate = Rate::within(Duration::from_secs(60), 10);
        let (begin, mut buckets) = (Instant::now(), Buckets::default());
        for key in 0..3 * MOST {
            let _ = buckets.take(key, rate, begin + Duration::from_micros(key as u64));
            assert!(buckets.len() <= MOST);
        }
        assert!(buckets.len() > MOST / 2);
    }

    #[test]
    fn the_fullest_buckets_are_given_up() {
        let (rate, now) = (Rate::within(Duration::from_secs(60), 2), Instant::now());
        let mut buckets = Buckets::default();
        // The first is empty, and the others have one token each.
        for key in 0..MOST {
            buckets.take(key, rate, now + Duration::from_nanos(key as u64)).unwrap();
        }
        buckets.take(0, rate, now).unwrap();
        buckets.take(MOST, rate, now).unwrap();
        assert!(buckets.len() < MOST);
        assert!(
            buckets.has(&0, rate, now).is_err(),
            "who has used up its tokens does not get others by a flood"
        );
        // Those that are full go first.
        let later = now + Duration::from_secs(61);
        for key in 0..MOST {
            buckets.take(2 * MOST + key, rate, later).unwrap();
        }
        assert!(buckets.len() <= MOST && buckets.has(&0, rate, now).is_ok());
    }
}
