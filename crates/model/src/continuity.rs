//! A tunnel's connection across a restart of its gateway.
//!
//! A restarted gateway finds connections as they are, and reports them from its own start on. Invariant: what did not
//! change since the last run is shown as before; new reports are shown as they are.

use jiff::{SignedDuration, Timestamp};

use crate::{Connection, ConnectionError, ConnectionState, SaTimes};

/// The largest difference between two readings of the same time: a daemon reports whole seconds, and its clock is read
/// again after a restart.
const SAME_TIME: SignedDuration = SignedDuration::from_secs(2);

/// The connection before the restart, while nothing has changed.
#[derive(Debug)]
pub struct ConnectionContinuity {
    /// The first report after the restart.
    first: Connection,
    since: Option<Timestamp>,
    /// Cleared by a new CHILD SA or another failure.
    last_error: Option<ConnectionError>,
    /// The error was reported again: it ends when it is no longer reported.
    has_failed_again: bool,
}

impl ConnectionContinuity {
    pub fn new(before: Connection, first: Connection) -> Self {
        let (is_up, was_up) = (first.state == ConnectionState::Up, before.state == ConnectionState::Up);
        let goes_on = first.state == before.state && (!is_up || is_same(first.ike_sa, before.ike_sa));
        let has_new_child = is_up && !(was_up && is_same(first.child_sa, before.child_sa));
        Self {
            since: goes_on.then_some(before.since),
            last_error: before.last_error.filter(|_| !has_new_child),
            has_failed_again: false,
            first,
        }
    }

    /// The tunnel was changed: an error of its previous configuration no longer applies.
    pub fn changed(&mut self) {
        self.last_error = None;
    }

    /// The connection to show for a report.
    pub fn shown(&mut self, reported: Connection) -> Connection {
        if (reported.state, reported.since) != (self.first.state, self.first.since) {
            self.since = None;
        }
        let has_new_child =
            reported.state == ConnectionState::Up && !is_same(reported.child_sa, self.first.child_sa);
        if has_new_child || (reported.last_error.is_none() && self.has_failed_again) {
            self.last_error = None;
        }
        let since = self.since.map_or(reported.since, |before| before.min(reported.since));
        let last_error = match (reported.last_error, self.last_error.take()) {
            (None, old) => {
                self.last_error.clone_from(&old);
                old
            }
            (Some(error), Some(old)) if error.is_same(&old) => {
                let error = ConnectionError { since: error.since.min(old.since), ..error };
                self.has_failed_again = true;
                self.last_error = Some(old);
                Some(error)
            }
            (error, _) => error,
        };
        Connection { since, last_error, ..reported }
    }
}

fn is_same(a: Option<SaTimes>, b: Option<SaTimes>) -> bool {
    let apart = |(a, b): (SaTimes, SaTimes)| a.established_at.duration_since(b.established_at).abs();
    a.zip(b).is_some_and(|both| apart(both) <= SAME_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConnectionFault, ConnectionState};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn connection(
        state: ConnectionState,
        since: i64,
        ike: i64,
        child: i64,
        failed: Option<i64>,
    ) -> Connection {
        let sa = |second| SaTimes { established_at: at(second), rekey_at: None };
        let up = state == ConnectionState::Up;
        let error = |since| ConnectionError {
            reason: ConnectionFault::PreSharedKeysDiffer,
            cause: "why".to_owned(),
            cure: String::new(),
            since: at(since),
        };
        Connection {
            state,
            ike_sa: up.then(|| sa(ike)),
            child_sa: up.then(|| sa(child)),
            last_error: failed.map(error),
            ..Connection::down(at(since))
        }
    }

    #[test]
    fn an_unchanged_connection_is_shown_as_before_the_restart() {
        use self::connection as is;
        use ConnectionState::{Connecting, Down, Up};
        for (before, reported, shown) in [
            // The same SAs. Their ages are in whole seconds.
            (is(Up, 10, 9, 9, None), is(Up, 100, 10, 8, None), is(Up, 10, 10, 8, None)),
            // Other SAs: the connection was down in the meantime.
            (is(Up, 10, 9, 9, None), is(Up, 100, 90, 90, None), is(Up, 100, 90, 90, None)),
            // A rekey failed before and still fails.
            (is(Up, 10, 9, 9, Some(50)), is(Up, 100, 9, 9, None), is(Up, 10, 9, 9, Some(50))),
            (is(Up, 10, 9, 9, Some(50)), is(Up, 100, 9, 95, None), is(Up, 10, 9, 95, None)),
            (is(Down, 10, 0, 0, Some(5)), is(Down, 100, 0, 0, None), is(Down, 10, 0, 0, Some(5))),
            (is(Down, 10, 0, 0, Some(5)), is(Down, 100, 0, 0, Some(110)), is(Down, 10, 0, 0, Some(5))),
            (
                is(Down, 10, 0, 0, Some(5)),
                is(Connecting, 100, 0, 0, None),
                is(Connecting, 100, 0, 0, Some(5)),
            ),
            (is(Down, 10, 0, 0, Some(5)), is(Up, 100, 99, 99, None), is(Up, 100, 99, 99, None)),
            (is(Up, 10, 9, 9, None), is(Down, 100, 0, 0, None), is(Down, 100, 0, 0, None)),
        ] {
            let mut continuity = ConnectionContinuity::new(before.clone(), reported.clone());
            for _ in 0..2 {
                assert_eq!(continuity.shown(reported.clone()), shown, "{reported:?} after {before:?}");
            }
        }
        // Another error replaces the old one.
        let mut other = is(Down, 100, 0, 0, Some(110));
        other.last_error.as_mut().unwrap().reason = ConnectionFault::IkeVersionDiffers;
        let shown =
            ConnectionContinuity::new(is(Down, 10, 0, 0, Some(5)), other.clone()).shown(other.clone());
        assert_eq!((shown.since, shown.last_error), (at(10), other.last_error));
    }

    #[test]
    fn a_later_report_is_shown_unchanged() {
        use self::connection as is;
        use ConnectionState::{Down, Up};
        let mut continuity = ConnectionContinuity::new(is(Up, 10, 9, 9, Some(50)), is(Up, 100, 9, 9, None));
        assert_eq!(continuity.shown(is(Up, 100, 9, 9, None)), is(Up, 10, 9, 9, Some(50)));
        // The rekey fails again, and the gateway reports no error because a second CHILD SA follows the first.
        assert_eq!(continuity.shown(is(Up, 100, 9, 9, Some(120))), is(Up, 10, 9, 9, Some(50)));
        assert_eq!(continuity.shown(is(Up, 100, 9, 10, None)), is(Up, 10, 9, 10, None));
        // The tunnel's configuration was corrected.
        let mut continuity =
            ConnectionContinuity::new(is(Down, 10, 0, 0, Some(5)), is(Down, 100, 0, 0, None));
        continuity.changed();
        assert_eq!(continuity.shown(is(Down, 100, 0, 0, None)), is(Down, 10, 0, 0, None));
        // The connection goes up and down between two checks.
        let mut continuity = ConnectionContinuity::new(is(Down, 10, 0, 0, None), is(Down, 100, 0, 0, None));
        assert_eq!(continuity.shown(is(Down, 100, 0, 0, None)), is(Down, 10, 0, 0, None));
        assert_eq!(continuity.shown(is(Down, 160, 0, 0, None)), is(Down, 160, 0, 0, None));
        assert_eq!(continuity.shown(is(Down, 160, 0, 0, None)), is(Down, 160, 0, 0, None));
    }
}
