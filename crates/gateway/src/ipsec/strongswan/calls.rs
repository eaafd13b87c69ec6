//! When the gateway calls a peer that it is to keep the tunnel up with. Pure: time is an argument.
//!
//! A call that fails is made again, after pauses that grow; the peer's own calls are answered meanwhile. While an IKE SA
//! is being made, by whomever, nobody is called: two ends that call each other at once end up with one SA each and stay
//! with them, since neither calls while it has one.

use std::time::Duration;

use tokio::time::Instant;

use super::sight::Line;

/// Before the first call: the way to the peer is opened right after the daemon was configured.
const FIRST: Duration = Duration::from_millis(200);
/// After a call that failed, and at most. A call itself tries for 22 s while nobody answers.
const AGAIN: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
pub(super) struct Calls {
    at: Option<Instant>,
    /// What the next call waits for; `None` for the first one.
    pause: Option<Duration>,
}

impl Calls {
    /// When to call; `None`: not before something else happens.
    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// The SAs were looked at.
    pub(super) fn look(&mut self, is_wanted: bool, line: Line, now: Instant) {
        match line {
            _ if !is_wanted => *self = Self::default(),
            Line::Up => *self = Self::default(),
            Line::Busy => self.at = None,
            Line::Free if self.at.is_none() => {
                let pause = self.pause.unwrap_or(FIRST);
                self.at = Some(now + pause);
                self.pause = Some((pause * 2).clamp(AGAIN, LONGEST));
            }
            Line::Free => {}
        }
    }

    /// It is called now.
    pub(super) fn called(&mut self) {
        self.at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_it_is_up() {
        let mut calls = Calls::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            calls.look(true, Line::Free, now);
            let at = calls.at().unwrap();
            // Looking again puts nothing off.
            calls.look(true, Line::Free, now + Duration::from_millis(1));
            assert_eq!(calls.at(), Some(at));
            pauses.push((at - now).as_millis());
            now = at;
            calls.called();
            calls.look(true, Line::Busy, now);
            assert_eq!(calls.at(), None);
        }
        assert_eq!(pauses, [200, 1000, 2000, 4000, 8000, 15_000, 15_000]);
        calls.look(true, Line::Up, now);
        calls.look(true, Line::Free, now);
        assert_eq!(calls.at(), Some(now + FIRST));
    }

    #[test]
    fn nobody_is_called_unless_it_is_wanted_or_while_the_peer_calls() {
        let mut calls = Calls::default();
        let now = Instant::now();
        calls.look(false, Line::Free, now);
        assert_eq!(calls.at(), None);
        calls.look(true, Line::Free, now);
        calls.look(true, Line::Busy, now);
        assert_eq!(calls.at(), None);
        calls.look(true, Line::Free, now);
        calls.look(false, Line::Free, now);
        assert_eq!(calls.at(), None);
    }
}
