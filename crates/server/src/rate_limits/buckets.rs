//! Token buckets, one for each key.
//!
//! Invariant: there are never more than [`MOST`] buckets. Too many give up those that are full, and then the fullest ones:
//! they forget the least.

use std::{collections::HashMap, hash::Hash, time::Duration};
use tokio::time::Instant;
use wicketgate_system::bucket::{Bucket, Rate};

/// More callers and sources than are in use at a time, in a megabyte.
pub(crate) const MOST: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(crate) struct Buckets<K>(HashMap<K, Bucket>);

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    /// Takes a token. Without one, nothing changes, and the error is the time until there is one.
    pub(crate) fn take(&mut self, key: K, rate: Rate, now: Instant) -> Result<(), Duration> {
        let mut bucket = self.bucket(&key);
        bucket.take(rate, now)?;
        self.keep(key, bucket, now);
        Ok(())
    }

    /// Whether there is a token to take; the error is as that of [`Self::take`].
    pub(crate) fn has(&self, key: &K, rate: Rate, now: Instant) -> Result<(), Duration> {
        self.bucket(key).take(rate, now)
    }

    /// Takes a token that is there within this time, and returns when it is. Else nothing changes, and the error is the time until
    /// it would be.
    pub(crate) fn reserve(
        &mut self,
        key: K,
        rate: Rate,
        (within, now): (Duration, Instant),
    ) -> Result<Duration, Duration> {
        let mut bucket = self.bucket(&key);
        let time = bucket.reserve(rate, now);
        if time > within {
            return Err(time);
        }
        self.keep(key, bucket, now);
        Ok(time)
    }

    /// Takes tokens that need not be there yet, from the bucket that an earlier token was taken from.
    pub(crate) fn owe(&mut self, key: &K, rate: Rate, (tokens, now): (u32, Instant)) {
        if let Some(bucket) = self.0.get_mut(key) {
            for _ in 0..tokens {
                bucket.reserve(rate, now);
            }
        }
    }

    fn keep(&mut self, key: K, bucket: Bucket, now: Instant) {
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            self.give_up(now);
        }
        self.0.insert(key, bucket);
    }

    fn bucket(&self, key: &K) -> Bucket {
        self.0.get(key).copied().unwrap_or_default()
    }

    /// An eighth at a time, so that a flood of keys does not look at all of them for each.
    fn give_up(&mut self, now: Instant) {
        self.0.retain(|_, bucket| bucket.full_at().is_some_and(|at| at > now));
        if self.0.len() >= MOST {
            let mut times: Vec<_> = self.0.values().map(Bucket::full_at).collect();
            let (_, fullest, _) = times.select_nth_unstable(MOST / 8);
            let fullest = *fullest;
            self.0.retain(|_, bucket| bucket.full_at() > fullest);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::num::NonZeroU32;

    /// A bucket as it is usually written: tokens in it, in the time in which they arrive.
    struct Reference {
        tokens: Duration,
        at: Instant,
        interval: Duration,
        depth: Duration,
    }

    impl Reference {
        fn take(&mut self, now: Instant) -> Result<(), Duration> {
            self.tokens = (self.tokens + now.duration_since(self.at)).min(self.depth);
            self.at = now;
            match self.tokens.checked_sub(self.interval) {
                Some(left) => {
                    self.tokens = left;
                    Ok(())
                }
                None => Err(self.interval - self.tokens),
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
            let interval = Duration::from_secs(1) / number;
            let depth = interval * burst;
            let mut now = Instant::now();
            let mut buckets = Buckets::default();
            let full = |_| Reference { tokens: depth, at: now, interval, depth };
            let mut reference: Vec<_> = (0..3).map(full).collect();
            for (key, quarters, waits) in steps {
                now += interval / 4 * u32::try_from(quarters).unwrap();
                let expected = reference[key].take(now);
                prop_assert_eq!(buckets.has(&key, rate, now), expected);
                prop_assert_eq!(buckets.take(key, rate, now), expected);
                if let (Err(missing), true) = (expected, waits) {
                    let early = now + missing - Duration::from_nanos(1);
                    prop_assert!(buckets.has(&key, rate, early).is_err());
                    now += missing;
                    prop_assert_eq!(buckets.take(key, rate, now), Ok(()));
                    prop_assert_eq!(reference[key].take(now), Ok(()));
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
