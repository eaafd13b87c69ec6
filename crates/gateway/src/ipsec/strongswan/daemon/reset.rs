//! The judgement of a reset of SAs on request. Pure: what is seen is an argument.
//!
//! Invariant: a reset succeeds only when its effect was seen.

use std::time::Duration;

use tokio::time::Instant;
use wicketgate_model::{Connection, ConnectionError, ConnectionState, ResetMode, ResetScope};

use crate::ipsec::strongswan::fault::LogLine;

/// For the outcome. charon repeats a message without an answer for 22 s.
const SEEN_WITHIN: Duration = Duration::from_secs(40);

const NO_ANSWER: &str = "the peer did not answer";

/// A reset whose outcome is not known yet.
#[derive(Debug)]
pub(super) struct Reset {
    scope: ResetScope,
    mode: ResetMode,
    /// The gateway starts again what it has ended.
    initiates: bool,
    /// Of before: the unique ids of the IKE SA and the CHILD SA, and the error.
    ids: (Option<u64>, Option<u64>),
    error: Option<ConnectionError>,
    ends_at: Instant,
    /// charon has reported a rekey of this scope.
    is_rekeyed: bool,
    /// charon gave up waiting for an answer.
    is_silent: bool,
}

impl Reset {
    /// It begins at `now`, with this connection and these ids of its SAs.
    pub(super) fn new(
        (scope, mode): (ResetScope, ResetMode),
        initiates: bool,
        connection: &Connection,
        ids: (Option<u64>, Option<u64>),
        now: Instant,
    ) -> Self {
        let (error, ends_at) = (connection.last_error.clone(), now + SEEN_WITHIN);
        Self { scope, mode, initiates, ids, error, ends_at, is_rekeyed: false, is_silent: false }
    }

    /// Whether there is an SA to reset, or one to be made.
    pub(super) fn has_subject(&self) -> bool {
        let is_there =
            if self.scope == ResetScope::Ike { self.ids.0.is_some() } else { self.ids.1.is_some() };
        is_there || (self.mode == ResetMode::Restart && self.initiates)
    }

    pub(super) fn what(&self) -> &'static str {
        match self.scope {
            ResetScope::Ike => "the IKE SA",
            ResetScope::Child => "the CHILD SA",
        }
    }

    /// Takes the name of an event.
    pub(super) fn event(&mut self, name: &str) {
        self.is_rekeyed |= match self.scope {
            ResetScope::Ike => name == "ike-rekey",
            ResetScope::Child => name == "child-rekey",
        };
    }

    /// Takes a line of charon's log. It gives up another IKE SA's requests, too.
    pub(super) fn log(&mut self, line: LogLine<'_>) {
        let is_before = line.ike_sa.is_some() && line.ike_sa == self.ids.0;
        let is_concerned = match (self.mode, self.scope) {
            (ResetMode::Rekey, _) => is_before,
            // The end of the one before needs no answer.
            (ResetMode::Restart, ResetScope::Ike) => !is_before,
            (ResetMode::Restart, ResetScope::Child) => true,
        };
        let has_given_up = line.text.starts_with("giving up after ") && line.text.contains("retransmit");
        self.is_silent |= is_concerned && has_given_up;
    }

    /// The outcome, once it is seen in the connection and the ids of its SAs.
    pub(super) fn outcome(
        &self,
        connection: &Connection,
        ids: (Option<u64>, Option<u64>),
        now: Instant,
    ) -> Option<Result<String, String>> {
        let what = self.what();
        let is_up = connection.state == ConnectionState::Up;
        let has_ended = match self.scope {
            ResetScope::Ike => ids.0 != self.ids.0 || self.ids.0.is_none(),
            ResetScope::Child => ids.1 != self.ids.1 || self.ids.1.is_none(),
        };
        let succeeded = match (self.mode, self.initiates) {
            (ResetMode::Rekey, _) => self.is_rekeyed.then(|| format!("{what} was rekeyed")),
            (ResetMode::Restart, false) => {
                has_ended.then(|| format!("{what} was ended: the site's device has to start it again"))
            }
            (ResetMode::Restart, true) => (has_ended && is_up && ids.1 != self.ids.1)
                .then(|| format!("{what} was ended, and is established again")),
        };
        if let Some(succeeded) = succeeded {
            return Some(Ok(succeeded));
        }
        let error = connection.last_error.as_ref().filter(|error| Some(*error) != self.error.as_ref());
        let is_lost = self.mode == ResetMode::Rekey && ids.0.is_none();
        let why = match error {
            Some(error) => error.to_string(),
            None if self.is_silent => NO_ANSWER.to_owned(),
            None if is_lost => "the connection ended meanwhile".to_owned(),
            // A failure that repeats itself is shown as it was.
            None if now >= self.ends_at => connection
                .last_error
                .as_ref()
                .map_or_else(|| format!("nothing was seen for {SEEN_WITHIN:?}"), ToString::to_string),
            None => return None,
        };
        Some(Err(match self.mode {
            ResetMode::Rekey => format!("{what} was not rekeyed: {why}"),
            ResetMode::Restart if has_ended => {
                format!("{what} was ended, and is not established again: {why}")
            }
            ResetMode::Restart => format!("{what} was not ended: {why}"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use wicketgate_model::ConnectionFault;

    fn reset(scope: ResetScope, mode: ResetMode, initiates: bool) -> Reset {
        let down = Connection::down(Timestamp::UNIX_EPOCH);
        Reset::new((scope, mode), initiates, &down, (Some(1), Some(2)), Instant::now())
    }

    fn is(state: ConnectionState) -> Connection {
        Connection { state, ..Connection::down(Timestamp::UNIX_EPOCH) }
    }

    #[test]
    fn a_rekey_succeeds_only_when_it_was_seen() {
        use ConnectionState::{Down, Up};
        let (now, ids) = (Instant::now(), (Some(1), Some(2)));
        for (scope, own, other, said) in [
            (ResetScope::Ike, "ike-rekey", "child-rekey", "the IKE SA was rekeyed"),
            (ResetScope::Child, "child-rekey", "ike-rekey", "the CHILD SA was rekeyed"),
        ] {
            let mut it = reset(scope, ResetMode::Rekey, false);
            it.event(other);
            // A peer that connects again has other SAs, too.
            assert_eq!(it.outcome(&is(Up), (Some(7), Some(8)), now), None);
            it.event(own);
            assert_eq!(it.outcome(&is(Up), ids, now), Some(Ok(said.to_owned())));
        }
        let mut it = reset(ResetScope::Child, ResetMode::Rekey, true);
        assert_eq!(it.outcome(&is(Up), ids, now), None);
        let failed = |why: &str| Some(Err(format!("the CHILD SA was not rekeyed: {why}")));
        assert_eq!(it.outcome(&is(Down), (None, None), now), failed("the connection ended meanwhile"));
        assert_eq!(it.outcome(&is(Up), ids, now + SEEN_WITHIN * 2), failed("nothing was seen for 40s"));
        let (reason, since) = (ConnectionFault::NoCommonEspProposal, Timestamp::UNIX_EPOCH);
        let error = ConnectionError { reason, cause: "why".to_owned(), cure: "what to do".to_owned(), since };
        let refused = Connection { last_error: Some(error.clone()), ..is(Up) };
        assert_eq!(it.outcome(&refused, ids, now), failed("why: what to do"));
        // The same error was there before.
        it.error = Some(error);
        assert_eq!(it.outcome(&refused, ids, now), None);
        assert_eq!(it.outcome(&refused, ids, now + SEEN_WITHIN * 2), failed("why: what to do"));
        let given_up = |ike_sa| LogLine { ike_sa: Some(ike_sa), text: "giving up after 5 retransmits" };
        it.log(given_up(7));
        assert_eq!(it.outcome(&refused, ids, now), None);
        it.log(given_up(1));
        assert_eq!(it.outcome(&refused, ids, now), failed(NO_ANSWER));
    }

    #[test]
    fn a_restart_has_ended_and_with_initiate_established_what_there_was() {
        use ConnectionState::{Down, Idle, Up};
        let now = Instant::now();
        let passive = reset(ResetScope::Ike, ResetMode::Restart, false);
        assert_eq!(passive.outcome(&is(Up), (Some(1), Some(2)), now), None);
        assert!(
            passive.outcome(&is(Down), (None, None), now).unwrap().unwrap().contains("has to start it again")
        );
        let mut active = reset(ResetScope::Child, ResetMode::Restart, true);
        assert_eq!(active.outcome(&is(Idle), (Some(1), None), now), None);
        assert!(
            active.outcome(&is(Up), (Some(1), Some(3)), now).unwrap().unwrap().ends_with("established again")
        );
        active.log(LogLine { ike_sa: Some(1), text: "giving up after 5 retransmits" });
        let failed = active.outcome(&is(Down), (None, None), now).unwrap().unwrap_err();
        assert_eq!(failed, "the CHILD SA was ended, and is not established again: the peer did not answer");
        assert_eq!(
            reset(ResetScope::Ike, ResetMode::Restart, false).outcome(
                &is(Up),
                (Some(1), Some(2)),
                now + SEEN_WITHIN * 2
            ),
            Some(Err("the IKE SA was not ended: nothing was seen for 40s".to_owned()))
        );
    }
}
