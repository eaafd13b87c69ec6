//! The readiness of shares, by the reports of their environment's agents.

use super::Roster;
use std::{mem, time::Duration};
use tokio::sync::watch;
use wicketgate_link::{AgentShareState, AgentShares, SHARES_PER_AGENT};
use wicketgate_model::{AgentId, Generation, Problem, Reason, ShareId};

/// The readiness of a share at the agents of its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStanding {
    /// The newest generation that a connected agent has acknowledged.
    pub ready: Option<Generation>,
    /// Why the newest generation is not ready, or, if it is ready, what impairs the share.
    pub problem: Option<Problem>,
}

impl Roster {
    /// The shortest round-trip time to an agent of the share's environment, as last measured.
    pub(crate) fn nearest(&self, share: ShareId) -> Option<Duration> {
        let environment = self.environments.get(&self.shares.get(&share)?.environment)?;
        environment.agents.iter().filter_map(|agent| self.connected.get(agent)?.rtt).min()
    }

    /// `None`: the agent is not connected.
    pub(crate) fn agent_shares(&self, agent: AgentId) -> Option<AgentShares> {
        let connected = self.connected.get(&agent)?;
        let environment = self.environments.get(&connected.about.environment);
        let shares = environment.into_iter().flat_map(|e| &e.shares).take(SHARES_PER_AGENT);
        let shares = shares.filter_map(|share| {
            let newest = self.shares.get(share)?.generation;
            let reports = connected.acknowledgements.get(share);
            let state = reports.map_or(AgentShareState::Pending, |reports| reports.state(newest));
            Some((*share, state))
        });
        let unanswered_since = connected.unanswered_since();
        let clock_seconds_ahead = connected.seconds_ahead;
        Some(AgentShares { agent, shares: shares.collect(), unanswered_since, clock_seconds_ahead })
    }

    /// Whether the port of the share is open; of an unknown share, it is.
    pub(crate) fn is_open(&self, share: ShareId) -> watch::Receiver<bool> {
        self.shares.get(&share).map_or_else(|| watch::channel(true).1, |share| share.is_open.subscribe())
    }

    /// Opens the port of the share, or closes it if no agent can serve a connection and the share wants that.
    pub(super) fn open_or_close(&self, share: ShareId) {
        let Some(assigned) = self.shares.get(&share) else { return };
        let agents = self.environments.get(&assigned.environment).into_iter().flat_map(|e| &e.agents);
        let mut able =
            agents.filter_map(|agent| self.connected.get(agent)).filter(|c| !c.draining && !c.is_silent());
        let is_open = !assigned.closes
            || able.any(|connected| {
                let reports = connected.acknowledgements.get(&share);
                reports.is_some_and(|r| r.acknowledged.is_some() && r.unreachable.is_none())
            });
        assigned.is_open.send_if_modified(|was| mem::replace(was, is_open) != is_open);
    }

    pub(crate) fn standing(&self, share: ShareId) -> AgentStanding {
        let not_ready = |reason, message: &str| AgentStanding {
            ready: None,
            problem: Some(Problem::new(reason, message)),
        };
        let Some(assigned) = self.shares.get(&share) else {
            return not_ready(Reason::AgentPending, "the share is not assigned to agents yet");
        };
        let agents = self.environments.get(&assigned.environment).into_iter().flat_map(|e| &e.agents);
        let (ending, staying): (Vec<_>, Vec<_>) =
            agents.filter_map(|agent| self.connected.get(agent)).partition(|c| c.draining);
        if staying.is_empty() {
            let message = match ending.len() {
                0 => "no agent of the environment is connected",
                _ => "the agents of the environment are stopping and accept no new connections",
            };
            return not_ready(Reason::AgentOffline, message);
        }
        let reports: Vec<_> =
            staying.iter().filter_map(|c| Some((*c, c.acknowledgements.get(&share)?))).collect();
        let ready = reports.iter().filter_map(|(_, s)| s.acknowledged).max();
        let problem = if ready == Some(assigned.generation) {
            let serving = || reports.iter().filter(|(_, s)| s.acknowledged == ready);
            let reaching = || serving().filter(|(_, s)| s.unreachable.is_none());
            if reaching().any(|(connected, _)| !connected.is_silent()) {
                staying.iter().find_map(|connected| connected.duplicate_problem())
            } else if let Some((connected, _)) = reaching().next() {
                Some(connected.silence_problem())
            } else {
                serving().find_map(|(_, s)| s.unreachable.clone())
            }
        } else {
            let refused =
                reports.iter().find_map(|(_, s)| s.refused.as_ref().filter(|r| r.0 == assigned.generation));
            Some(match (refused, staying.iter().find(|connected| !connected.is_silent())) {
                (Some((_, why)), _) => Problem::new(Reason::AgentRefused, why),
                (None, None) => staying[0].silence_problem(),
                (None, Some(_)) => {
                    Problem::new(Reason::AgentPending, "no agent has acknowledged the share yet")
                }
            })
        };
        AgentStanding { ready, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{connect, share},
        *,
    };
    use std::time::Instant;

    #[test]
    fn a_port_is_closed_while_no_agent_can_serve_if_its_share_wants_that() {
        let mut roster = Roster::default();
        let (id, mut wanted) = (share(1).id, share(1));
        roster.assign(&wanted);
        let is_open = roster.is_open(id);
        let now = |roster: &mut Roster| {
            roster.elect();
            *is_open.borrow()
        };
        assert!(now(&mut roster), "it does not want it");
        wanted.options.close_when_unserved = true;
        roster.assign(&wanted);
        assert!(!now(&mut roster), "no agent is connected");
        let [one, two] = [1, 2].map(|n| connect(&mut roster, n));
        assert!(!now(&mut roster), "none has the share");
        for session in [&one, &two] {
            roster.acknowledged(session, id, Generation::FIRST);
        }
        assert!(now(&mut roster));
        let unreachable = || Some(Problem::new(Reason::TargetUnreachable, "no"));
        roster.health(&one, id, unreachable(), Instant::now());
        assert!(now(&mut roster), "the other one reaches the target");
        roster.draining(&two);
        assert!(!now(&mut roster));
        roster.health(&one, id, None, Instant::now());
        assert!(now(&mut roster));
        roster.disconnect(&one);
        assert!(!now(&mut roster));
        // Another environment, whose agents are not connected.
        wanted.environment = wicketgate_model::EnvironmentId::new(uuid::Uuid::from_u128(9));
        wanted.options.close_when_unserved = false;
        roster.assign(&wanted);
        assert!(now(&mut roster));
    }
}
