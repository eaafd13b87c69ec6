//! Agents that were refused because another one with their identity is connected.

use super::{Connected, Roster, Session};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::info;
use wicketgate_link::ConnectedAgent;
use wicketgate_model::{AgentId, Problem, Reason};

/// How long the problem is shown after the last attempt: agents repeat it every five seconds.
const SHOWN_FOR: Duration = Duration::from_secs(20);
/// The most copies of one agent that are told apart: the log names each once.
const MOST: usize = 16;

impl Roster {
    /// The control connection of the agent that a newer one would replace, unless it is stopping.
    pub(crate) fn holder(&self, agent: AgentId) -> Option<(Arc<Session>, ConnectedAgent)> {
        let connected = self.connected.get(&agent).filter(|connected| !connected.draining)?;
        Some((Arc::clone(&connected.session), connected.about.clone()))
    }

    /// Records that another agent with its identity was refused. Returns whether that is new.
    pub(crate) fn duplicated(&mut self, session: &Session, newer: &ConnectedAgent, now: Instant) -> bool {
        let Some(connected) = self.connected(session) else { return false };
        let duplicates = &mut connected.duplicates;
        if let Some((_, at)) = duplicates.iter_mut().find(|(known, _)| known == newer) {
            *at = now;
            return false;
        }
        if duplicates.len() >= MOST {
            return false;
        }
        duplicates.push((newer.clone(), now));
        let environment = connected.about.environment;
        self.changed.extend(self.environments.get(&environment).into_iter().flat_map(|e| &e.shares));
        true
    }

    /// Forgets agents that have stopped to try.
    pub(crate) fn forget_duplicates(&mut self, now: Instant) {
        let Self { connected, environments, changed, .. } = self;
        for Connected { duplicates, about, .. } in connected.values_mut() {
            let before = duplicates.len();
            duplicates.retain(|(_, at)| now.saturating_duration_since(*at) <= SHOWN_FOR);
            if duplicates.len() == before {
                continue;
            }
            if duplicates.is_empty() {
                info!(agent.id = %about.agent, "no other agent with the same identity tries to connect any more");
            }
            changed.extend(environments.get(&about.environment).into_iter().flat_map(|e| &e.shares));
        }
    }
}

impl Connected {
    /// What users of the agent's shares learn about another agent with its identity.
    pub(super) fn duplicate_problem(&self) -> Option<Problem> {
        // The first one: a text that changes is a change of status.
        let (ConnectedAgent { address, name, .. }, _) = self.duplicates.first()?;
        let ConnectedAgent { agent, address: own, name: own_name, .. } = &self.about;
        let message = format!(
            "agent {agent} is connected from {own} ({own_name}), and another one with its identity, at {address} ({name}), is \
             refused: a state directory was copied. Enrol one of them again with a new code and an empty --state-dir, or \
             start the refused one with --take-over"
        );
        Some(Problem::new(Reason::AgentDuplicated, message))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{agent, connect, share},
        *,
    };

    #[test]
    fn each_copy_of_an_agent_is_told_once_however_they_take_turns() {
        let mut roster = Roster::default();
        roster.assign(&share(1));
        let session = connect(&mut roster, 1);
        let (_, about) = roster.holder(agent(1)).unwrap();
        let copies = ["a", "b"].map(|name| ConnectedAgent { name: name.to_owned(), ..about.clone() });
        let mut now = Instant::now();
        let told =
            |roster: &mut Roster, now| copies.each_ref().map(|copy| roster.duplicated(&session, copy, now));
        assert_eq!(told(&mut roster, now), [true, true]);
        let problem = roster.standing(share(1).id).problem;
        for _ in 0..10 {
            now += SHOWN_FOR / 4;
            assert_eq!(told(&mut roster, now), [false, false]);
            roster.forget_duplicates(now);
            assert_eq!(roster.standing(share(1).id).problem, problem);
        }
        roster.forget_duplicates(now + 2 * SHOWN_FOR);
        assert_eq!(told(&mut roster, now), [true, true]);
    }
}
