//! Reports of agents about shares, and the readiness that follows from them.
//!
//! Invariant: reports of a connection that is not the agent's newest, and reports about shares that are not assigned to
//! its environment, are ignored.

use super::{AgentStanding, Roster};
use crate::agents::balancer::Record;
use std::time::{Duration, Instant};
use wicketgate_link::{AgentShareState, AgentShares, SHARES_PER_AGENT};
use wicketgate_model::{AgentId, Generation, Problem, Reason, ShareId};
use wicketgate_transport::control::TargetHealth;

/// What an agent has reported about a share since it connected.
#[derive(Default)]
pub(super) struct Acknowledgement {
    pub(super) acknowledged: Option<Generation>,
    refused: Option<(Generation, String)>,
    pub(super) unreachable: Option<String>,
    /// The newest generation that the agent has refused.
    newest_refused: Option<Generation>,
    /// Results of dials to this generation's target, since the first failure.
    pub(super) record: Option<Record>,
}

impl Roster {
    fn said(
        &mut self,
        agent: AgentId,
        session: u64,
        share: ShareId,
    ) -> Option<(&mut Acknowledgement, Generation)> {
        let connected = self.connected.get_mut(&agent).filter(|c| c.session == session)?;
        let wanted = self.shares.get(&share).filter(|w| w.environment == connected.about.environment)?;
        self.changed.insert(share);
        Some((connected.said.entry(share).or_default(), wanted.generation))
    }

    pub(in crate::agents) fn acknowledged(
        &mut self,
        agent: AgentId,
        session: u64,
        share: ShareId,
        g: Generation,
    ) {
        if let Some((said, newest)) = self.said(agent, session, share)
            && g <= newest
        {
            *said = Acknowledgement {
                acknowledged: Some(g),
                newest_refused: said.newest_refused,
                ..Acknowledgement::default()
            };
        }
    }

    /// Returns whether it is new: no generation as new as this one was refused before.
    pub(in crate::agents) fn refused(
        &mut self,
        agent: AgentId,
        session: u64,
        share: ShareId,
        g: Generation,
        why: String,
    ) -> bool {
        let Some((said, newest)) = self.said(agent, session, share) else { return false };
        if g > newest {
            return false;
        }
        let is_news = said.newest_refused < Some(g);
        let newest_refused = said.newest_refused.max(Some(g));
        *said = Acknowledgement { refused: Some((g, why)), newest_refused, ..Acknowledgement::default() };
        is_news
    }

    pub(in crate::agents) fn health(
        &mut self,
        agent: AgentId,
        session: u64,
        share: ShareId,
        health: TargetHealth,
        now: Instant,
    ) {
        if let Some((said, _)) = self.said(agent, session, share) {
            said.unreachable = match health {
                TargetHealth::Ok => {
                    // The agent probes the target itself.
                    if let Some(record) = &mut said.record {
                        record.worked(now);
                    }
                    None
                }
                TargetHealth::Unreachable(cause) => Some(cause),
            };
        }
    }

    /// Records the round-trip time of an answer.
    pub(in crate::agents) fn answered(&mut self, agent: AgentId, session: u64, rtt: Duration) {
        if let Some(connected) = self.connected.get_mut(&agent).filter(|c| c.session == session) {
            connected.rtt = Some(rtt);
        }
    }

    pub(in crate::agents) fn nearest(&self, share: ShareId) -> Option<Duration> {
        let environment = self.environments.get(&self.shares.get(&share)?.environment)?;
        environment.agents.iter().filter_map(|agent| self.connected.get(agent)?.rtt).min()
    }

    /// `None`: the agent is not connected.
    pub(in crate::agents) fn agent_shares(&self, agent: AgentId) -> Option<AgentShares> {
        let connected = self.connected.get(&agent)?;
        let environment = self.environments.get(&connected.about.environment);
        let shares = environment.into_iter().flat_map(|e| &e.shares).take(SHARES_PER_AGENT);
        let shares = shares.filter_map(|share| {
            let newest = self.shares.get(share)?.generation;
            let state = match connected.said.get(share) {
                Some(Acknowledgement { refused: Some((g, why)), .. }) if *g == newest => {
                    AgentShareState::Refused(why.clone())
                }
                Some(Acknowledgement { acknowledged, unreachable, .. }) if *acknowledged == Some(newest) => {
                    unreachable.clone().map_or(AgentShareState::Serving, AgentShareState::Unreachable)
                }
                _ => AgentShareState::Pending,
            };
            Some((*share, state))
        });
        Some(AgentShares { agent, shares: shares.collect() })
    }

    pub(in crate::agents) fn standing(&self, share: ShareId) -> AgentStanding {
        let not_ready = |reason, message: &str| AgentStanding {
            ready: None,
            problem: Some(Problem::new(reason, message)),
        };
        let Some(wanted) = self.shares.get(&share) else {
            return not_ready(Reason::AgentPending, "the share is not assigned to agents yet");
        };
        let agents = self.environments.get(&wanted.environment).into_iter().flat_map(|e| &e.agents);
        let (ending, staying): (Vec<_>, Vec<_>) =
            agents.filter_map(|agent| self.connected.get(agent)).partition(|c| c.draining);
        if staying.is_empty() {
            let message = match ending.len() {
                0 => "no agent of the environment is connected",
                _ => "the agents of the environment are stopping and accept no new connections",
            };
            return not_ready(Reason::AgentOffline, message);
        }
        let said: Vec<_> = staying.iter().filter_map(|c| c.said.get(&share)).collect();
        let ready = said.iter().filter_map(|s| s.acknowledged).max();
        let problem = if ready == Some(wanted.generation) {
            let serving = || said.iter().filter(|s| s.acknowledged == ready);
            serving()
                .all(|s| s.unreachable.is_some())
                .then(|| serving().find_map(|s| s.unreachable.as_deref()))
                .flatten()
                .map(|cause| Problem::new(Reason::TargetUnreachable, cause))
        } else {
            let refused = said.iter().find_map(|s| s.refused.as_ref().filter(|r| r.0 == wanted.generation));
            Some(match refused {
                Some((_, why)) => Problem::new(Reason::AgentRefused, why),
                None => Problem::new(Reason::AgentPending, "no agent has acknowledged the share yet"),
            })
        };
        AgentStanding { ready, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{agent, connect, share},
        *,
    };

    #[test]
    fn a_refusal_is_news_once() {
        let mut roster = Roster::default();
        roster.assign(&share(2));
        let (id, session) = (share(2).id, connect(&mut roster, 1));
        let [one, two, three] = [1, 2, 3].map(Generation::new);
        let mut refuse = |g| roster.refused(agent(1), session.number, id, g, "no".to_owned());
        assert_eq!([refuse(one), refuse(one), refuse(two), refuse(one)], [true, false, true, false]);
        assert!(!refuse(three), "never assigned");
        roster.acknowledged(agent(1), session.number, id, two);
        assert!(!roster.refused(agent(1), session.number, id, two, "no".to_owned()));
    }

    #[test]
    fn what_an_agent_says_of_its_shares_is_told() {
        let mut roster = Roster::default();
        roster.assign(&share(2));
        let (id, session) = (share(2).id, connect(&mut roster, 1));
        let [one, two] = [1, 2].map(Generation::new);
        let told = |roster: &Roster| roster.agent_shares(agent(1)).unwrap().shares;
        assert_eq!(told(&roster), [(id, AgentShareState::Pending)]);
        roster.acknowledged(agent(1), session.number, id, one);
        assert_eq!(told(&roster), [(id, AgentShareState::Pending)], "an older one is not the newest");
        roster.acknowledged(agent(1), session.number, id, two);
        assert_eq!(told(&roster), [(id, AgentShareState::Serving)]);
        let now = Instant::now();
        roster.health(agent(1), session.number, id, TargetHealth::Unreachable("refused".to_owned()), now);
        assert_eq!(told(&roster), [(id, AgentShareState::Unreachable("refused".to_owned()))]);
        roster.refused(agent(1), session.number, id, two, "not allowed".to_owned());
        assert_eq!(told(&roster), [(id, AgentShareState::Refused("not allowed".to_owned()))]);
        roster.answered(agent(1), session.number, Duration::from_millis(3));
        assert_eq!(roster.nearest(id), Some(Duration::from_millis(3)));
        roster.disconnect(agent(1), session.number);
        assert_eq!((roster.agent_shares(agent(1)), roster.nearest(id)), (None, None));
    }
}
