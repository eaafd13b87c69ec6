//! Which agent probes the target of a share.
//!
//! A probe is a connection, and targets may count connections or have room for one only. Invariants: one agent of an
//! environment probes a target that is not in use; none does while clients use the share through this gateway, and for a
//! while after it. An agent that does not reach a target probes it by itself until it does.

use super::{Connected, Roster, Session, newest};
use std::{
    collections::BTreeSet,
    mem,
    time::{Duration, Instant},
};
use wicketgate_model::ShareId;
use wicketgate_transport::control::{ToAgent, rest_of};

/// How often shares in use are checked: a target is to be probed in the interval that its share wants, a second at least.
pub(crate) const REST_EVERY: Duration = Duration::from_millis(500);
/// Shares in one message, of 40 bytes each.
const DUTIES_PER_MESSAGE: usize = 4096;

impl Roster {
    /// Ends the use of shares without streams.
    pub(crate) fn rest(&mut self, now: Instant) {
        let Self { in_use, shares, unelected, .. } = self;
        in_use.retain(|share| {
            let Some(assigned) = shares.get_mut(share) else { return false };
            let is_in_use = assigned.duty.rest(rest_of(assigned.probes.unwrap_or_default()), now);
            if !is_in_use {
                unelected.insert(*share);
            }
            is_in_use
        });
    }

    /// Determines the probers of shares for which they may have changed, and whether their ports are open.
    pub(crate) fn elect(&mut self) {
        for share in mem::take(&mut self.unelected) {
            self.open_or_close(share);
            let Some(assigned) = self.shares.get_mut(&share) else { continue };
            let agents = self.environments.get(&assigned.environment).into_iter().flat_map(|e| &e.agents);
            let able = |connected: &&Connected| {
                let reports = connected.acknowledgements.get(&share);
                let fails = reports.is_some_and(|r| r.unreachable.is_some() || r.refused.is_some());
                connected.duties.is_some() && !connected.draining && !connected.is_silent() && !fails
            };
            let mut able = agents.filter_map(|agent| self.connected.get(agent)).filter(able);
            let is_idle = assigned.probes.is_some() && !assigned.duty.is_in_use();
            let elected = is_idle.then(|| able.next()).flatten();
            let elected = elected.map(|connected| (connected.about.agent, connected.session.number));
            let former = mem::replace(&mut assigned.duty.prober, elected);
            if former == elected {
                continue;
            }
            for (agent, _) in [former, elected].into_iter().flatten() {
                if let Some(Connected { duties: Some(duties), session, .. }) = self.connected.get_mut(&agent)
                {
                    duties.insert(share);
                    session.outbox_filled.notify_one();
                }
            }
        }
    }

    /// What the agent has to learn about its duties, for shares that were sent to it.
    pub(super) fn take_duties(&mut self, session: &Session) -> Option<ToAgent> {
        let connected = newest(&mut self.connected, session)?;
        let duties = connected.duties.as_mut()?;
        let ready: BTreeSet<ShareId> =
            duties.difference(&connected.outbox).copied().take(DUTIES_PER_MESSAGE).collect();
        duties.retain(|share| !ready.contains(share));
        if !duties.is_empty() {
            session.outbox_filled.notify_one();
        }
        let own = Some((session.agent, session.number));
        let is_own = |share: &ShareId| self.shares.get(share).is_some_and(|s| s.duty.prober == own);
        let (on, off): (Vec<_>, Vec<_>) = ready.into_iter().partition(is_own);
        (on.len() + off.len() > 0).then_some(ToAgent::ProbeDuty { on, off })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{agent, connect, share},
        *,
    };
    use wicketgate_model::{Generation, HealthCheck, Problem, Reason};

    /// Whether each message of an agent's outbox sets its duty or ends it.
    fn told(roster: &mut Roster, session: &Session) -> Vec<bool> {
        roster.elect();
        let messages = roster.take_outbox(session).into_iter();
        let told = messages.filter_map(|message| match message {
            ToAgent::ProbeDuty { on, off } => Some([vec![true; on.len()], vec![false; off.len()]].concat()),
            _ => None,
        });
        told.flatten().collect()
    }

    #[test]
    fn one_agent_probes_a_target_that_is_not_in_use() {
        let mut roster = Roster::default();
        roster.assign(&share(1));
        let id = share(1).id;
        let [one, two] = [1, 2].map(|n| connect(&mut roster, n));
        assert_eq!((told(&mut roster, &one), told(&mut roster, &two)), (vec![true], vec![]));
        for session in [&one, &two] {
            roster.acknowledged(session, id, Generation::FIRST);
        }
        assert_eq!((told(&mut roster, &one), told(&mut roster, &two)), (vec![], vec![]));
        // The target may be reachable from the other agent only.
        let now = Instant::now();
        roster.health(&one, id, Some(Problem::new(Reason::TargetUnreachable, "no")), now);
        assert_eq!((told(&mut roster, &one), told(&mut roster, &two)), (vec![false], vec![true]));
        roster.health(&one, id, None, now);
        assert_eq!((told(&mut roster, &two), told(&mut roster, &one)), (vec![false], vec![true]));
        // Streams show that the target is alive, through whichever agent they go.
        let pick = roster.pick(id, &[agent(1)], now).unwrap();
        assert_eq!((told(&mut roster, &two), told(&mut roster, &one)), (vec![], vec![false]));
        let rest = rest_of(HealthCheck::default().interval().unwrap());
        roster.rest(now + 2 * rest);
        assert!(told(&mut roster, &one).is_empty(), "the stream is open");
        drop(pick);
        roster.rest(now + 3 * rest - REST_EVERY);
        assert!(told(&mut roster, &one).is_empty(), "it has just ended");
        roster.rest(now + 3 * rest);
        assert_eq!((told(&mut roster, &two), told(&mut roster, &one)), (vec![], vec![true]));
        // A new connection knows nothing of its duties.
        let again = connect(&mut roster, 1);
        assert_eq!((told(&mut roster, &one), told(&mut roster, &again)), (vec![], vec![true]));
        roster.disconnect(&again);
        assert_eq!(told(&mut roster, &two), [true]);
    }
}
