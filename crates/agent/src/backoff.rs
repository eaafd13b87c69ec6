//! Waiting before another try: longer each time, and at random, so that a thousand agents whose gateway has come
//! back do not all dial at once.

use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    tries: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, tries: 0 }
    }

    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.wait(random());
        self.tries = self.tries.saturating_add(1);
        wait
    }

    /// Between half of `first` and the doubled-up limit ("full jitter", with a floor under it).
    fn wait(&self, random: u32) -> Duration {
        let limit =
            self.first.saturating_mul(1u32.checked_shl(self.tries).unwrap_or(u32::MAX)).min(self.most);
        let least = self.first / 2;
        least + limit.saturating_sub(least).mul_f64(fraction(random))
    }
}

/// A wait between two thirds of `most` and all of it: what began together does not stay together.
pub(crate) fn up_to(most: Duration) -> Duration {
    most - (most / 3).mul_f64(1.0 - fraction(random()))
}

/// Without randomness the greatest number, for the longest wait: never a busy loop.
fn random() -> u32 {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_or(u32::MAX, |()| u32::from_le_bytes(bytes))
}

fn fraction(random: u32) -> f64 {
    f64::from(random) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_has_bounds(tries: u32, random: u32) {
            let (first, most) = (Duration::from_millis(50), Duration::from_secs(5));
            let wait = Backoff { first, most, tries }.wait(random);
            prop_assert!(wait >= first / 2 && wait <= most);
        }
    }

    #[test]
    fn waits_grow_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        assert_eq!(backoff.wait(u32::MAX), Duration::from_millis(50));
        for _ in 0..40 {
            backoff.next();
        }
        assert_eq!(backoff.wait(u32::MAX), Duration::from_secs(5));
        backoff.reset();
        assert_eq!(backoff.wait(u32::MAX), Duration::from_millis(50));
    }
}
