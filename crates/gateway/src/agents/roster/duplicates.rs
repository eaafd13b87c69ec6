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

impl Roster {
    /// The control connection of the agent that a newer one would replace, unless it is stopping.
    pub(crate) fn holder(&self, agent: AgentId) -> Option<(Arc<Session>, ConnectedAgent)> {
        let connected = self.connected.get(&agent).filter(|connected| !connected.draining)?;
        Some((Arc::clone(&connected.session), connected.about.clone()))
    }

    /// Records that another agent with its identity was refused. Returns whether that is new.
    pub(crate) fn duplicated(&mut self, session: &Session, newer: &ConnectedAgent, now: Instant) -> bool {
        let Some(connected) = self.connected(session) else { return false };
        let is_new = connected.duplicate.as_ref().is_none_or(|(before, _)| before != newer);
        connected.duplicate = Some((newer.clone(), now));
        let environment = connected.about.environment;
        if is_new {
            self.changed.extend(self.environments.get(&environment).into_iter().flat_map(|e| &e.shares));
        }
        is_new
    }

    /// Forgets agents that have stopped to try.
    pub(crate) fn forget_duplicates(&mut self, now: Instant) {
        let Self { connected, environments, changed, .. } = self;
        for Connected { duplicate, about, .. } in connected.values_mut() {
            if duplicate.take_if(|(_, at)| now.saturating_duration_since(*at) > SHOWN_FOR).is_some() {
                info!(agent.id = %about.agent, "no other agent with the same identity tries to connect any more");
                changed.extend(environments.get(&about.environment).into_iter().flat_map(|e| &e.shares));
            }
        }
    }
}

impl Connected {
    /// What users of the agent's shares learn about another agent with its identity.
    pub(super) fn duplicate_problem(&self) -> Option<Problem> {
        let (ConnectedAgent { address, name, .. }, _) = self.duplicate.as_ref()?;
        let ConnectedAgent { agent, address: own, name: own_name, .. } = &self.about;
        let message = format!(
            "agent {agent} is connected from {own} ({own_name}), and another one with its identity, at {address} ({name}), is \
             refused: a state directory was copied. Enrol one of them again with a new code and an empty --state-dir, or \
             start the refused one with --take-over"
        );
        Some(Problem::new(Reason::AgentDuplicated, message))
    }
}
