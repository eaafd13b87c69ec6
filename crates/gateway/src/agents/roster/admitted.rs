//! The agents that the server has named, and those of them that are connected.

use super::{Roster, Session};
use std::sync::Arc;
use wicketgate_link::ConnectedAgent;
use wicketgate_model::{AgentDesired, AgentId};
use wicketgate_transport::identity::{AgentIdentity, PresentedAgent};

/// Whether an agent is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted,
    /// It was removed.
    Barred,
    /// The server has not named it, or has named another environment or key.
    Unknown,
    /// The server has not named any agent yet: this gateway has just started.
    TooEarly,
}

impl Roster {
    /// The newest control connections of all connected agents.
    pub(in crate::agents) fn sessions(&self) -> Vec<Arc<Session>> {
        self.connected.values().map(|c| Arc::clone(&c.session)).collect()
    }

    /// The newest control connection of the agent.
    pub(in crate::agents) fn session(&self, agent: AgentId) -> Option<Arc<Session>> {
        self.connected.get(&agent).map(|c| Arc::clone(&c.session))
    }

    pub(in crate::agents) fn about(&self, agent: AgentId) -> Option<(u64, ConnectedAgent)> {
        self.connected.get(&agent).map(|c| (c.session.number, c.about.clone()))
    }

    pub(in crate::agents) fn admits(&self, agent: &PresentedAgent) -> Admission {
        let PresentedAgent { identity: AgentIdentity { agent, environment, .. }, key_sha256 } = *agent;
        match self.named.get(&agent) {
            Some(AgentDesired::Barred) => Admission::Barred,
            Some(named) if *named == (AgentDesired::Enrolled { environment, key_sha256 }) => {
                Admission::Admitted
            }
            None if !self.is_informed => Admission::TooEarly,
            Some(AgentDesired::Enrolled { .. }) | None => Admission::Unknown,
        }
    }

    /// What the server says of the agent; `None`: nothing any longer. Ends its connections and streams, if that is another
    /// thing than before.
    pub(in crate::agents) fn name(&mut self, agent: AgentId, desired: Option<AgentDesired>) {
        let before = match desired {
            Some(desired) => self.named.insert(agent, desired),
            None => self.named.remove(&agent),
        };
        if before.is_none() || before == desired {
            return;
        }
        self.remove(agent);
        if let Some(streams) = self.streams.remove(&agent) {
            streams.abort.trigger();
        }
    }
}
