//! What agents are sent of the assigned shares.

use super::{Roster, Session, newest};
use std::ops::Bound;
use wicketgate_model::{EnvironmentId, ShareId, SignedAssignment};
use wicketgate_transport::control::{ASSIGNMENTS_PER_MESSAGE, ToAgent};

impl Roster {
    /// The messages to send to the agent, each of bounded length.
    pub(crate) fn take_outbox(&mut self, session: &Session) -> Vec<ToAgent> {
        let Some(connected) = newest(&mut self.connected, session) else { return Vec::new() };
        let (mut assignments, mut withdrawn) = (Vec::new(), Vec::new());
        while let Some(share) = connected.outbox.pop_first() {
            match self.shares.get(&share) {
                Some(w) if w.environment == connected.about.environment => {
                    assignments.push(w.assignment.clone());
                }
                _ => withdrawn.push(share),
            }
            if assignments.len().max(withdrawn.len()) == ASSIGNMENTS_PER_MESSAGE {
                session.outbox_filled.notify_one();
                break;
            }
        }
        let mut messages = Vec::new();
        if !withdrawn.is_empty() {
            messages.push(ToAgent::Withdraw { shares: withdrawn });
        }
        if !assignments.is_empty() {
            messages.push(ToAgent::Assign { assignments });
        }
        messages.extend(self.take_gateways(session));
        messages.extend(self.take_duties(session));
        messages
    }

    /// One message of the environment's assignments, of shares after `last`, and the last of them.
    pub(crate) fn assigned_after(
        &self,
        environment: EnvironmentId,
        last: Option<ShareId>,
    ) -> (Vec<SignedAssignment>, Option<ShareId>) {
        let after = (last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let shares = self.environments.get(&environment).into_iter().flat_map(|e| e.shares.range(after));
        let ids: Vec<_> = shares.take(ASSIGNMENTS_PER_MESSAGE).copied().collect();
        let assignments = ids.iter().filter_map(|share| Some(self.shares.get(share)?.assignment.clone()));
        (assignments.collect(), ids.last().copied())
    }
}
