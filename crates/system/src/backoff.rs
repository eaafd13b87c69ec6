//! Pauses between attempts. They double up to a limit and are randomized, so that many clients of a service that
//! restarted do not all return at once.

use std::time::Duration;

/// The pauses of one series of attempts.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, attempts: 0 }
    }

    /// Starts again with the shortest pause.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The next pause, at random between half of the shortest and the doubled limit ("full jitter" with a minimum).
    pub fn randomized(&mut self) -> Duration {
        let fraction = random_fraction();
        let least = self.first / 2;
        least + self.doubled().saturating_sub(least).mul_f64(fraction)
    }

    /// The next pause, without randomness: for attempts on this machine.
    pub fn doubled(&mut self) -> Duration {
        let factor = 1u32.checked_shl(self.attempts).unwrap_or(u32::MAX);
        self.attempts = self.attempts.saturating_add(1);
        self.first.saturating_mul(factor).min(self.longest)
    }
}

/// At random between two thirds of `longest` and all of it, so that periodic work that started together spreads.
pub fn spread(longest: Duration) -> Duration {
    longest - (longest / 3).mul_f64(1.0 - random_fraction())
}

/// From 0 to 1. Without randomness 1, for the longest pause: never a busy loop.
fn random_fraction() -> f64 {
    let mut bytes = [0; 4];
    let random = getrandom::fill(&mut bytes).map_or(u32::MAX, |()| u32::from_le_bytes(bytes));
    f64::from(random) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(5);

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again() {
        let mut backoff = Backoff::new(FIRST, LONGEST);
        assert_eq!(backoff.doubled(), FIRST);
        assert_eq!(backoff.doubled(), FIRST * 2);
        for _ in 0..40 {
            backoff.doubled();
        }
        assert_eq!(backoff.doubled(), LONGEST);
        backoff.reset();
        assert_eq!(backoff.doubled(), FIRST);
    }

    #[test]
    fn randomized_pauses_stay_within_their_bounds() {
        for attempts in 0..200 {
            let limit = Backoff { first: FIRST, longest: LONGEST, attempts }.doubled();
            let pause = Backoff { first: FIRST, longest: LONGEST, attempts }.randomized();
            assert!(pause >= FIRST / 2 && pause <= limit, "{attempts}: {pause:?}");
            let spread = spread(LONGEST);
            assert!(spread >= LONGEST * 2 / 3 - FIRST && spread <= LONGEST, "{spread:?}");
        }
    }
}
