//! A connection over its gateway's restart.
//!
//! A gateway that was started again finds connections as they are, and tells them from its own start on. Invariant: what
//! has not changed since its last run is shown as it was; what it tells anew is shown as it tells it.

use jiff::{SignedDuration, Timestamp};

use crate::{Connection, ConnectionError, ConnectionState, SaTimes};

/// Two readings of one point in time: a daemon tells whole seconds, and before and after a restart its clock is read anew.
const SAME_TIME: SignedDuration = SignedDuration::from_secs(2);

/// How a connection stood before the restart, for as long as nothing has changed.
#[derive(Debug)]
pub struct ConnectionContinuity {
    /// What was told first after the restart.
    first: Connection,
    since: Option<Timestamp>,
    /// What a new CHILD SA, or another failure, makes a thing of the past.
    last_error: Option<ConnectionError>,
    /// It was told again: from now on it is over when it is told no more.
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

    /// The tunnel is another one: what was wrong with it accuses it no more.
    pub fn changed(&mut self) {
        self.last_error = None;
    }

    /// What is to be shown for what is told.
    pub fn shown(&mut self, told: Connection) -> Connection {
        if (told.state, told.since) != (self.first.state, self.first.since) {
            self.since = None;
        }
        let has_new_child = told.state == ConnectionState::Up && !is_same(told.child_sa, self.first.child_sa);
        if has_new_child || (told.last_error.is_none() && self.has_failed_again) {
            self.last_error = None;
        }
        let since = self.since.map_or(told.since, |before| before.min(told.since));
        let last_error = match (told.last_error, self.last_error.take()) {
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
        Connection { since, last_error, ..told }
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
    fn what_a_restart_finds_as_it_was_is_as_it_was() {
        use self::connection as is;
        use ConnectionState::{Connecting, Down, Up};
        for (before, told, shown) in [
            // The same SAs, whose age is read in whole seconds.
            (is(Up, 10, 9, 9, None), is(Up, 100, 10, 8, None), is(Up, 10, 10, 8, None)),
            // Others: it was away meanwhile.
            (is(Up, 10, 9, 9, None), is(Up, 100, 90, 90, None), is(Up, 100, 90, 90, None)),
            // A rekey fails, and still has.
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
            let mut resumed = ConnectionContinuity::new(before.clone(), told.clone());
            for _ in 0..2 {
                assert_eq!(resumed.shown(told.clone()), shown, "{told:?} after {before:?}");
            }
        }
        // Another error is another one.
        let mut other = is(Down, 100, 0, 0, Some(110));
        other.last_error.as_mut().unwrap().reason = ConnectionFault::IkeVersionDiffers;
        let shown =
            ConnectionContinuity::new(is(Down, 10, 0, 0, Some(5)), other.clone()).shown(other.clone());
        assert_eq!((shown.since, shown.last_error), (at(10), other.last_error));
    }

    #[test]
    fn what_is_told_anew_later_is_shown_as_it_is() {
        use self::connection as is;
        use ConnectionState::{Down, Up};
        let mut resumed = ConnectionContinuity::new(is(Up, 10, 9, 9, Some(50)), is(Up, 100, 9, 9, None));
        assert_eq!(resumed.shown(is(Up, 100, 9, 9, None)), is(Up, 10, 9, 9, Some(50)));
        // It fails again, and there is a second CHILD SA right behind the first: the gateway says that all is well.
        assert_eq!(resumed.shown(is(Up, 100, 9, 9, Some(120))), is(Up, 10, 9, 9, Some(50)));
        assert_eq!(resumed.shown(is(Up, 100, 9, 10, None)), is(Up, 10, 9, 10, None));
        // The tunnel was corrected.
        let mut resumed = ConnectionContinuity::new(is(Down, 10, 0, 0, Some(5)), is(Down, 100, 0, 0, None));
        resumed.changed();
        assert_eq!(resumed.shown(is(Down, 100, 0, 0, None)), is(Down, 10, 0, 0, None));
        // Up and down again between two looks.
        let mut resumed = ConnectionContinuity::new(is(Down, 10, 0, 0, None), is(Down, 100, 0, 0, None));
        assert_eq!(resumed.shown(is(Down, 100, 0, 0, None)), is(Down, 10, 0, 0, None));
        assert_eq!(resumed.shown(is(Down, 160, 0, 0, None)), is(Down, 160, 0, 0, None));
        assert_eq!(resumed.shown(is(Down, 160, 0, 0, None)), is(Down, 160, 0, 0, None));
    }
}
