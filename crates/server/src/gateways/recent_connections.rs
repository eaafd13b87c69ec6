//! How the last connections of each share ended, and what is wrong if most of them failed in the same way.
//!
//! Probes see a target from the agent; this is what clients saw.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use wicketgate_model::{FailureReason, Problem, Reason, ShareId, TrafficDelta};

/// Connections that are looked at. A few successes after a repair are the majority.
const LAST: usize = 10;
/// Fewer are no evidence: one client may have made a mistake.
const FEWEST: usize = 3;
/// An older connection says nothing about now.
const RECENT: SignedDuration = SignedDuration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct RecentConnections(BTreeMap<ShareId, Outcomes>);

/// Of one share, oldest first.
#[derive(Debug, Default)]
struct Outcomes {
    /// When a connection was reported, and why it failed, if it did.
    last: VecDeque<(Timestamp, Option<FailureReason>)>,
    problem: Option<Problem>,
}

impl RecentConnections {
    /// Takes in a report. Returns the shares whose problem has changed.
    pub(crate) fn take(&mut self, deltas: &[TrafficDelta], now: Timestamp) -> Vec<ShareId> {
        let mut changed = Vec::new();
        for delta in deltas {
            let ended = delta.connections + delta.failed();
            if ended == 0 {
                continue;
            }
            let outcomes = self.0.entry(delta.share).or_default();
            let failures = delta.failures.iter().map(|(reason, count)| (Some(*reason), *count));
            for (outcome, count) in [(None, delta.connections)].into_iter().chain(failures) {
                // A report has no order: of very many, each kind gets its part.
                let part = if ended > LAST as u64 { scaled(count, ended) } else { count };
                outcomes.last.extend((0..part).map(|_| (now, outcome)));
            }
            if outcomes.judge(now) {
                changed.push(delta.share);
            }
        }
        changed
    }

    /// Forgets what is not recent any more. Returns the shares whose problem has changed.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<ShareId> {
        let mut changed = Vec::new();
        self.0.retain(|share, outcomes| {
            if outcomes.judge(now) {
                changed.push(*share);
            }
            !outcomes.last.is_empty()
        });
        changed
    }

    /// The share was changed: earlier connections say nothing about it.
    pub(crate) fn forget(&mut self, share: ShareId) {
        self.0.remove(&share);
    }

    pub(crate) fn problem(&self, share: ShareId) -> Option<&Problem> {
        self.0.get(&share)?.problem.as_ref()
    }
}

impl Outcomes {
    /// Returns whether the problem has changed.
    fn judge(&mut self, now: Timestamp) -> bool {
        let excess = self.last.len().saturating_sub(LAST);
        self.last.drain(..excess);
        while self.last.front().is_some_and(|(at, _)| now.duration_since(*at) >= RECENT) {
            self.last.pop_front();
        }
        let problem = self.majority();
        let is_changed = problem != self.problem;
        self.problem = problem;
        is_changed
    }

    fn majority(&self) -> Option<Problem> {
        let mut counts: BTreeMap<FailureReason, usize> = BTreeMap::new();
        for reason in self.last.iter().filter_map(|(_, outcome)| *outcome) {
            *counts.entry(reason).or_default() += 1;
        }
        let (reason, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        let all = self.last.len();
        if all < FEWEST || count * 2 <= all {
            return None;
        }
        let problem = if reason.is_refusal() { Reason::ConnectionsRefused } else { Reason::ConnectionsFail };
        let advice = reason.advice();
        Some(Problem::new(
            problem,
            format!("{count} of the last {all} connections were not served ({reason}): {advice}"),
        ))
    }
}

/// The part of [`LAST`] that `count` of `all` has, rounded.
fn scaled(count: u64, all: u64) -> u64 {
    let last = LAST as u64;
    count.saturating_mul(last).saturating_add(all / 2) / all
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::ToSpan as _;
    use uuid::Uuid;
    use wicketgate_model::TunnelId;

    fn share() -> ShareId {
        ShareId::new(Uuid::nil())
    }

    fn ended(opened: u64, failures: &[(FailureReason, u64)]) -> [TrafficDelta; 1] {
        let delta = TrafficDelta::new(share(), TunnelId::new(Uuid::nil()));
        [TrafficDelta { connections: opened, failures: failures.iter().copied().collect(), ..delta }]
    }

    #[test]
    fn the_majority_of_recent_connections_decides() {
        let (mut recent, now) = (RecentConnections::default(), Timestamp::UNIX_EPOCH);
        let refused = [(FailureReason::ConnectionRefused, 1)];
        assert!(recent.take(&ended(0, &refused), now).is_empty(), "one failure is no evidence");
        assert!(recent.take(&ended(0, &refused), now).is_empty());
        assert_eq!(recent.take(&ended(0, &refused), now), [share()]);
        let problem = recent.problem(share()).unwrap();
        assert_eq!(problem.reason, Reason::ConnectionsFail);
        let expected = "3 of the last 3 connections were not served (connection-refused): ";
        assert!(problem.message.starts_with(expected), "{}", problem.message);

        // A repaired target: as soon as as many connections succeed as fail, it is no majority.
        assert_eq!(recent.take(&ended(3, &[]), now), [share()]);
        assert_eq!(recent.problem(share()), None);

        // Of very many, each kind has its part.
        recent.take(&ended(100, &[(FailureReason::SourceNotAllowed, 900)]), now);
        let problem = recent.problem(share()).unwrap();
        assert_eq!(problem.reason, Reason::ConnectionsRefused);
        assert!(problem.message.starts_with("9 of the last 10 "), "{}", problem.message);

        assert!(recent.expire(now + 59.seconds()).is_empty());
        assert_eq!(recent.expire(now + 60.seconds()), [share()], "no connection for a minute");
        assert_eq!(recent.problem(share()), None);
        assert!(recent.0.is_empty());
    }

    #[test]
    fn failures_of_different_kinds_are_no_majority() {
        let mut recent = RecentConnections::default();
        let mixed = [(FailureReason::ConnectionRefused, 2), (FailureReason::DialTimeout, 2)];
        recent.take(&ended(0, &mixed), Timestamp::UNIX_EPOCH);
        assert_eq!(recent.problem(share()), None);
    }
}
