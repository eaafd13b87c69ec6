//! Token buckets: how fast something may happen, and how much of it at once after a pause.
//!
//! A bucket is kept as the time at which it is full again (the virtual scheduling of GCRA, ITU-T I.371): one number, and
//! nothing for a bucket that is full.

use std::{num::NonZeroU32, time::Duration};
use tokio::time::Instant;

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In which one token arrives.
    interval: Duration,
    /// For a full bucket.
    depth: Duration,
}

impl Rate {
    /// A full bucket has `burst` tokens, and `number` arrive in a second.
    pub fn per_second(number: NonZeroU32, burst: NonZeroU32) -> Self {
        let interval = Duration::from_secs(1) / number.get();
        Self { interval, depth: interval * burst.get() }
    }

    /// A full bucket has `number` tokens, and as many arrive within the window.
    pub const fn within(window: Duration, number: u32) -> Self {
        // A division by zero is an error of the constant that calls this.
        Self { interval: Duration::from_nanos(window.as_nanos() as u64 / number as u64), depth: window }
    }
}

/// See the module. The default is a full one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    full_at: Option<Instant>,
}

impl Bucket {
    /// Takes a token. Without one, nothing changes, and the error is the time until there is one.
    ///
    /// # Errors
    ///
    /// The bucket is empty.
    pub fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let full_at = self.after(rate, now);
        match missing(full_at, rate, now) {
            Duration::ZERO => {
                self.full_at = Some(full_at);
                Ok(())
            }
            missing => Err(missing),
        }
    }

    /// Takes a token, also one that is yet to arrive: those who wait for theirs are served in the order in which they came.
    /// Returns the time until the token is there.
    pub fn reserve(&mut self, rate: Rate, now: Instant) -> Duration {
        self.reserve_many(rate, 1, now)
    }

    /// Like [`Bucket::reserve`], of so many tokens. Returns the time until all are there.
    pub fn reserve_many(&mut self, rate: Rate, tokens: u32, now: Instant) -> Duration {
        let full_at = self.full_at.unwrap_or(now).max(now) + rate.interval * tokens;
        self.full_at = Some(full_at);
        missing(full_at, rate, now)
    }

    /// When the bucket is full; a time in the past: it is.
    pub fn full_at(&self) -> Option<Instant> {
        self.full_at
    }

    /// When the bucket would be full after a token was taken.
    fn after(&self, rate: Rate, now: Instant) -> Instant {
        self.full_at.unwrap_or(now).max(now) + rate.interval
    }
}

/// Until a bucket that would then be full at this time has the token.
fn missing(full_at: Instant, rate: Rate, now: Instant) -> Duration {
    full_at.duration_since(now).saturating_sub(rate.depth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_reserves_waits_in_the_order_of_arrival_at_the_rate() {
        let number = |n| NonZeroU32::new(n).unwrap();
        let rate = Rate::per_second(number(100), number(3));
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        let waits: Vec<_> = (0..6).map(|_| bucket.reserve(rate, now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 10, 20, 30]);
        assert_eq!(bucket.take(rate, now), Err(Duration::from_millis(40)));
        let later = now + Duration::from_millis(40);
        assert_eq!((bucket.take(rate, later), bucket.reserve(rate, later).as_millis()), (Ok(()), 10));
        // A pause fills it, and no more.
        let much_later = now + Duration::from_secs(9);
        let waits: Vec<_> = (0..4).map(|_| bucket.reserve(rate, much_later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 10]);
        assert_eq!(bucket.reserve_many(rate, 5, much_later).as_millis(), 60);
    }
}
