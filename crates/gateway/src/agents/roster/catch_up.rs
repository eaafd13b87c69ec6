//! The progress of an agent that has just connected, and acknowledges the shares of its environment one after another.

use std::time::{Duration, Instant};

/// Far longer than an agent takes from one acknowledgement to the next: it checks a signature.
const PROGRESS: Duration = Duration::from_secs(2);

/// It ends once the agent has acknowledged nothing for [`PROGRESS`], however many shares there are. A share that it has not
/// acknowledged then is not served by it.
#[derive(Default)]
pub(super) struct CatchUp {
    acknowledged: usize,
    /// When that number was seen first.
    since: Option<Instant>,
}

impl CatchUp {
    /// Takes in how many shares the agent has acknowledged. To be called periodically; returns whether it has ended.
    pub(super) fn ends(&mut self, acknowledged: usize, now: Instant) -> bool {
        match self.since {
            Some(since) if self.acknowledged == acknowledged => {
                now.saturating_duration_since(since) >= PROGRESS
            }
            _ => {
                *self = Self { acknowledged, since: Some(now) };
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_for_as_long_as_shares_are_acknowledged() {
        let (mut catch_up, begin) = (CatchUp::default(), Instant::now());
        let mut ends = |acknowledged, halves| catch_up.ends(acknowledged, begin + halves * PROGRESS / 2);
        assert_eq!([ends(0, 0), ends(0, 1), ends(1, 2), ends(1, 3), ends(2, 4), ends(2, 5)], [false; 6]);
        assert!(ends(2, 6));
    }
}
