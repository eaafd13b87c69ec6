//! The readiness of shares, by the reports of their environment's agents.

use super::Roster;
use std::{
    mem,
    time::{Duration, Instant},
};
use tokio::sync::watch;
use wicketgate_link::{AgentShareState, AgentShares, SHARES_PER_AGENT};
use wicketgate_model::{AgentId, Generation, Problem, Reason, ShareId};

/// One connection that fails makes a target unreachable until its next probe, after a second. A port that is closed resets
/// what waits in it, so it stays open for as long.
const CLOSED_AFTER: Duration = Duration::from_secs(2);
/// How often such ports are looked at.
pub(crate) const CLOSE_EVERY: Duration = Duration::from_millis(500);

/// The readiness of a share at the agents of its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStanding {
    /// The newest generation that a connected agent has acknowledged.
    pub ready: Option<Generation>,
    /// Why the newest generation is not ready, or, if it is ready, what impairs the share.
    pub problem: Option<Problem>,
    /// An agent that has just connected is about to acknowledge the share.
    pub catches_up: bool,
}

impl Roster {
    /// The shortest round-trip time to an agent of the share's environment, as last measured.
    pub(crate) fn nearest(&self, share: ShareId) -> Option<Duration> {
        let environment = self.environments.get(&self.shares.get(&share)?.environment)?;
        environment.agents.iter().filter_map(|agent| self.connected.get(agent)?.rtt).min()
    }

    /// Control connections since the start.
    pub(crate) fn connections(&self) -> u64 {
        self.last_session
    }

    /// Looks whether agents that catch up have acknowledged more. To be called periodically.
    pub(crate) fn look_at_progress(&mut self, now: Instant) {
        let Self { environments, connected, changed, .. } = self;
        for agent in connected.values_mut() {
            let acknowledgements = &agent.acknowledgements;
            if agent.catch_up.as_mut().is_some_and(|catch_up| catch_up.ends(acknowledgements.len(), now)) {
                agent.catch_up = None;
                let shares = environments.get(&agent.about.environment).into_iter().flat_map(|e| &e.shares);
                changed.extend(shares.filter(|share| !acknowledgements.contains_key(share)));
            }
        }
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

    /// Opens the port of the share, or closes it if no agent can serve a connection and the share wants that. While only the
    /// target is unreachable, [`Self::close_unreachable`] closes it.
    pub(super) fn open_or_close(&mut self, share: ShareId) {
        let Some(assigned) = self.shares.get(&share) else {
            self.closing.remove(&share);
            return;
        };
        let agents = self.environments.get(&assigned.environment).into_iter().flat_map(|e| &e.agents);
        let able =
            agents.filter_map(|agent| self.connected.get(agent)).filter(|c| !c.draining && !c.is_silent());
        let having = able.filter_map(|connected| connected.acknowledgements.get(&share));
        let having = having.filter(|reports| reports.acknowledged.is_some());
        // Of the one that can do most.
        let reaches = having.map(|reports| reports.unreachable.is_none()).max();
        let is_open = match reaches {
            _ if !assigned.closes => true,
            Some(false) if *assigned.is_open.borrow() => {
                self.closing.entry(share).or_default();
                return;
            }
            reaches => reaches == Some(true),
        };
        self.closing.remove(&share);
        assigned.is_open.send_if_modified(|was| mem::replace(was, is_open) != is_open);
    }

    /// Closes ports whose targets have been unreachable for long enough.
    pub(crate) fn close_unreachable(&mut self, now: Instant) {
        let Self { shares, closing, .. } = self;
        closing.retain(|share, since| {
            let is_due = now.saturating_duration_since(*since.get_or_insert(now)) >= CLOSED_AFTER;
            if is_due && let Some(assigned) = shares.get(share) {
                assigned.is_open.send_replace(false);
            }
            !is_due
        });
    }

    pub(crate) fn standing(&self, share: ShareId) -> AgentStanding {
        let not_ready = |reason, message: &str| AgentStanding {
            ready: None,
            problem: Some(Problem::new(reason, message)),
            catches_up: false,
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
                serving().find_map(|(_, s)| s.unreachable.as_deref().cloned())
            }
        } else {
            let refused =
                reports.iter().find_map(|(_, s)| s.refused.as_ref().filter(|r| r.0 == assigned.generation));
            Some(match (refused, staying.iter().find(|connected| !connected.is_silent())) {
                (Some((_, why)), _) => Problem::clone(why),
                (None, None) => staying[0].silence_problem(),
                (None, Some(_)) => {
                    Problem::new(Reason::AgentPending, "no agent has acknowledged the share yet")
                }
            })
        };
        let catches_up =
            staying.iter().any(|c| c.catch_up.is_some() && !c.acknowledgements.contains_key(&share));
        AgentStanding { ready, problem, catches_up }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{connect, share},
        *,
    };
    use uuid::Uuid;
    use wicketgate_model::ShareDesired;

    #[test]
    fn a_share_waits_for_an_agent_that_acknowledges_others() {
        let (mut roster, begin) = (Roster::default(), Instant::now());
        let shares = [1, 2, 3].map(|n| ShareDesired { id: ShareId::new(Uuid::from_u128(n)), ..share(1) });
        for share in &shares {
            roster.assign(share);
        }
        let [first, second, third] = shares.map(|share| share.id);
        assert!(!roster.standing(third).catches_up, "no agent is connected");
        let session = connect(&mut roster, 1);
        assert!(roster.standing(third).catches_up);
        roster.look_at_progress(begin);
        for (share, second) in [(first, 1), (second, 2)] {
            roster.acknowledged(&session, share, Generation::FIRST);
            assert!(!roster.standing(share).catches_up, "it has come to it");
            roster.look_at_progress(begin + Duration::from_secs(second));
        }
        roster.changed.clear();
        roster.look_at_progress(begin + Duration::from_secs(3));
        assert!(roster.standing(third).catches_up && roster.changed.is_empty());
        roster.look_at_progress(begin + Duration::from_secs(4));
        assert!(!roster.standing(third).catches_up);
        assert_eq!(roster.changed, [third].into());
    }

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
        let begin = Instant::now();
        let after = |roster: &mut Roster, after| {
            roster.close_unreachable(begin + after);
            now(roster)
        };
        assert!(now(&mut roster));
        assert!(after(&mut roster, Duration::ZERO) && after(&mut roster, CLOSED_AFTER / 2), "not for long");
        // A probe reaches it, and the next client does not.
        roster.health(&one, id, None, begin);
        assert!(now(&mut roster));
        roster.health(&one, id, unreachable(), begin);
        assert!(now(&mut roster));
        assert!(after(&mut roster, CLOSED_AFTER) && !after(&mut roster, 2 * CLOSED_AFTER));
        roster.health(&one, id, unreachable(), begin);
        assert!(!now(&mut roster), "it stays closed");
        roster.health(&one, id, None, begin);
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
