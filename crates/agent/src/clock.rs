//! The difference between the clock of this host and the server's. Certificates are valid by the clock.

use jiff::Timestamp;
use std::time::Instant;

/// Smaller differences are no fault: certificates are issued an hour before they are used, and answers take a while.
const TOLERATED_SECONDS: u64 = 60;

/// What an operator does about a wrong clock.
pub(crate) const CURE: &str = "set the clock of this host, for example with `timedatectl set-ntp true`";

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClockComparison {
    /// The moment, by the server's clock.
    pub(crate) at: Timestamp,
    /// The moment, by neither clock.
    pub(crate) made: Instant,
    /// As [`seconds_ahead`] has it.
    pub(crate) ahead: Option<i64>,
}

impl ClockComparison {
    /// Of this moment. `None`: the server's time, in Unix seconds, is none.
    pub(crate) fn with(server: i64) -> Option<Self> {
        let at = Timestamp::from_second(server).ok()?;
        Some(Self { at, made: Instant::now(), ahead: seconds_ahead(Timestamp::now(), server) })
    }
}

/// How many seconds this host's clock is ahead of the server's, which is in Unix seconds; negative if it is behind; `None`: not enough to matter.
pub(crate) fn seconds_ahead(here: Timestamp, server: i64) -> Option<i64> {
    let ahead = here.as_second().saturating_sub(server);
    (ahead.unsigned_abs() >= TOLERATED_SECONDS).then_some(ahead)
}

/// A difference, rounded down: `2 days`, `23 h`, `5 min`.
pub(crate) fn rounded(seconds: u64) -> String {
    match seconds {
        0..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::ToSpan as _;

    #[test]
    fn a_difference_has_a_sign_and_small_ones_do_not_matter() {
        let here = Timestamp::UNIX_EPOCH + 1.hour();
        assert_eq!(seconds_ahead(here, 3_600 - 59), None);
        assert_eq!(seconds_ahead(here, 3_600 + 90), Some(-90));
        assert_eq!([90, 7_199, 86_400, 200_000].map(rounded), ["1 min", "119 min", "24 h", "2 days"]);
    }
}
