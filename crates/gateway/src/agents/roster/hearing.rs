//! Agents that do not answer: their host is cut off or hangs, and their control connection has not ended yet.
//!
//! A gateway pings each agent every second. Invariants: new streams avoid a suspected agent while another one answers; a
//! share whose agents are all silent is not ready; the first message of an agent ends both.

use super::{Connected, Roster, Session};
use jiff::Timestamp;
use std::time::Duration;
use wicketgate_model::{AgentId, Problem, Reason};
use wicketgate_transport::control::SILENCE;

/// From the last message until the agent is suspected. On a bad line, TCP sends a lost ping again after 0.2, 0.6 and 1.4 s.
const SUSPECTED_AFTER: Duration = Duration::from_secs(3);
/// From the last message until the agent counts as silent: what users see is decided within 5 s.
const SILENT_AFTER: Duration = Duration::from_millis(4500);

/// Whether an agent answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hearing {
    Answers,
    Suspected,
    Silent,
}

impl Hearing {
    /// The time without a message after which this ends.
    pub(crate) fn lasts(self) -> Duration {
        match self {
            Self::Answers => SUSPECTED_AFTER,
            Self::Suspected => SILENT_AFTER,
            Self::Silent => SILENCE,
        }
    }

    /// What follows without a message; `None`: the end of the connection.
    pub(crate) fn next(self) -> Option<Self> {
        match self {
            Self::Answers => Some(Self::Suspected),
            Self::Suspected => Some(Self::Silent),
            Self::Silent => None,
        }
    }
}

impl Roster {
    /// Whether the agent is connected, answers, and is not about to stop.
    pub(crate) fn is_well(&self, agent: AgentId) -> bool {
        let connected = self.connected.get(&agent);
        connected.is_some_and(|c| c.hearing.0 == Hearing::Answers && !c.draining)
    }

    /// Records whether the agent answers; `since`: its last message. Returns what was recorded before.
    pub(crate) fn hears(&mut self, session: &Session, hearing: Hearing, since: Timestamp) -> Hearing {
        let Some(connected) = self.connected(session) else { return hearing };
        let before = std::mem::replace(&mut connected.hearing, (hearing, since)).0;
        let environment = connected.about.environment;
        session.is_silent.send_replace(hearing == Hearing::Silent);
        if (before == Hearing::Silent) != (hearing == Hearing::Silent) {
            let shares = self.environments.get(&environment).into_iter().flat_map(|e| &e.shares);
            self.changed.extend(shares.clone());
            self.unelected.extend(shares);
        }
        before
    }
}

impl Connected {
    pub(super) fn is_silent(&self) -> bool {
        self.hearing.0 == Hearing::Silent
    }

    /// When its last message arrived, if it does not answer.
    pub(super) fn unanswered_since(&self) -> Option<Timestamp> {
        let (hearing, since) = self.hearing;
        (hearing != Hearing::Answers).then_some(since)
    }

    /// What users of its shares learn while it is silent and there is no other agent.
    pub(super) fn silence_problem(&self) -> Problem {
        let message = format!(
            "agent {} does not answer, and is asked every second: check its host, and the line between it and the gateway",
            self.about
        );
        Problem::new(Reason::AgentSilent, message)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{agent, connect, share},
        *,
    };
    use std::{mem, time::Instant};
    use wicketgate_model::Generation;

    #[test]
    fn new_streams_avoid_an_agent_that_does_not_answer_and_a_share_without_another_is_not_ready() {
        let (mut roster, now, since) = (Roster::default(), Instant::now(), Timestamp::UNIX_EPOCH);
        let mut closing = share(1);
        closing.options.close_when_unserved = true;
        roster.assign(&closing);
        let id = share(1).id;
        let [one, two] = [1, 2].map(|n| connect(&mut roster, n));
        for session in [&one, &two] {
            roster.acknowledged(session, id, Generation::FIRST);
        }
        let reason = |roster: &Roster| roster.standing(id).problem.map(|problem| problem.reason);
        let picked = |roster: &mut Roster| {
            let mut picked: Vec<_> =
                (0..4).map(|_| roster.pick(id, &[], now).unwrap().session.agent).collect();
            picked.dedup();
            picked
        };
        mem::take(&mut roster.changed);
        roster.hears(&one, Hearing::Suspected, since);
        assert_eq!((picked(&mut roster), reason(&roster)), (vec![agent(2)], None));
        assert!(roster.changed.is_empty(), "a suspicion changes no share");
        roster.hears(&one, Hearing::Silent, since);
        assert_eq!((picked(&mut roster), reason(&roster)), (vec![agent(2)], None));
        assert!(!roster.has_answering(id, &[agent(2)]) && roster.has_answering(id, &[agent(1)]));

        roster.elect();
        assert!(*roster.is_open(id).borrow());
        roster.hears(&two, Hearing::Silent, since);
        roster.elect();
        assert!(!*roster.is_open(id).borrow(), "the port that wants it is closed");
        assert_eq!(reason(&roster), Some(Reason::AgentSilent));
        assert!(roster.pick(id, &[], now).is_some(), "a stream may still wait for it");
        assert!(!roster.has_answering(id, &[]));
        assert!(!mem::take(&mut roster.changed).is_empty());
        assert_eq!(roster.agent_shares(agent(1)).unwrap().unanswered_since, Some(since));

        assert!(!roster.is_well(agent(1)), "what happens to its streams says nothing about targets");
        assert_eq!(roster.hears(&one, Hearing::Answers, since), Hearing::Silent);
        assert!(roster.is_well(agent(1)));
        assert_eq!((picked(&mut roster), reason(&roster)), (vec![agent(1)], None));
        roster.elect();
        assert!(*roster.is_open(id).borrow());
        assert!(!mem::take(&mut roster.changed).is_empty());
        roster.draining(&one);
        assert!(!roster.is_well(agent(1)), "it resets its streams");
    }
}
