//! How the last connections of each share ended: what is wrong if most of them failed in the same way, and which clients
//! the gateway refused.
//!
//! Probes see a target from the agent; this is what clients saw. Invariants: silence proves nothing, so a failure remains
//! until a connection is served, an agent or a check reaches the target again, or no client has connected for [`QUIET`]; and a
//! problem has no counts and keeps its kind, because each change of a problem is a change of the share's status.

#[cfg(test)]
mod tests;
mod unanswered;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};

use jiff::{SignedDuration, Timestamp};
use unanswered::{FEWEST, Instead, QUIET, UnansweredRun};
use wicketgate_model::{FailureReason, Problem, Reason, ShareId, TrafficDelta};

/// Connections that are looked at. A few successes after a repair are the majority.
const LAST: usize = 10;
/// A connection that ended otherwise, this much later, outweighs an older one.
const OUTDATED: SignedDuration = SignedDuration::from_secs(60);
/// How long a refusal is told after the last one: an operator has time to look.
const REFUSAL_TOLD: SignedDuration = SignedDuration::from_mins(10);
/// Addresses of refused clients that are told. A scan has very many.
const SOURCES: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct RecentConnections(BTreeMap<ShareId, Outcomes>);

/// Of one share.
#[derive(Debug, Default)]
struct Outcomes {
    /// Of admitted connections, oldest first: when each was reported, and why it failed, if it did.
    last: VecDeque<(Timestamp, Option<FailureReason>)>,
    failing: Option<FailureReason>,
    refused: Option<Refused>,
    unanswered: UnansweredRun,
}

/// What is wrong, and with which connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Failing(FailureReason),
    Unanswered(Instead),
    Refused(FailureReason),
}

/// Connections that the gateway did not admit, since the first one that is still told.
#[derive(Debug)]
struct Refused {
    by: FailureReason,
    count: u64,
    sources: BTreeSet<IpAddr>,
    last: Timestamp,
}

/// The connections that a problem is about, counted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotServed {
    pub(crate) count: u64,
    /// Of how many; `None`: since the problem began.
    pub(crate) of: Option<u64>,
    /// Addresses of clients that were refused, some of them if there are many.
    pub(crate) sources: Vec<IpAddr>,
}

impl RecentConnections {
    /// Takes in a report. Returns the shares whose problem has changed.
    pub(crate) fn take(&mut self, deltas: &[TrafficDelta], now: Timestamp) -> Vec<ShareId> {
        let mut changed = Vec::new();
        let ends = |delta: &&TrafficDelta| {
            delta.connections + delta.failed() + delta.answered + delta.unanswered.count() > 0
        };
        for delta in deltas.iter().filter(ends) {
            let outcomes = self.0.entry(delta.share).or_default();
            let before = outcomes.told();
            outcomes.take(delta, now);
            if outcomes.told() != before {
                changed.push(delta.share);
            }
        }
        changed
    }

    /// Forgets what may not be told any longer. Returns the shares whose problem has changed.
    pub(crate) fn expire(&mut self, now: Timestamp) -> Vec<ShareId> {
        let mut changed = Vec::new();
        for (share, outcomes) in &mut self.0 {
            let before = outcomes.told();
            outcomes.refused.take_if(|refused| now.duration_since(refused.last) >= REFUSAL_TOLD);
            outcomes.unanswered.expire(now);
            let newest = outcomes.last.back().filter(|_| outcomes.failing.is_some());
            if newest.is_some_and(|(at, _)| now.duration_since(*at) >= QUIET) {
                outcomes.serves();
            }
            if outcomes.told() != before {
                changed.push(*share);
            }
        }
        changed
    }

    /// An agent or a check has reached the share's target after a failure. Returns whether the share's problem has changed.
    pub(crate) fn mended(&mut self, share: ShareId) -> bool {
        let Some(outcomes) = self.0.get_mut(&share) else { return false };
        let before = outcomes.told();
        outcomes.serves();
        outcomes.told() != before
    }

    /// The share was changed or is gone: earlier connections say nothing about it.
    pub(crate) fn forget(&mut self, share: ShareId) {
        self.0.remove(&share);
    }

    /// Forgets all other shares.
    pub(crate) fn retain(&mut self, shares: &BTreeSet<ShareId>) {
        self.0.retain(|share, _| shares.contains(share));
    }

    pub(crate) fn problem(&self, share: ShareId) -> Option<Problem> {
        let told = self.0.get(&share)?.told()?;
        let (what, failure) = match told {
            Told::Failing(failure) => ("most of the last connections were not served", failure),
            Told::Unanswered(instead) => return Some(Problem::new(told.reason(), instead.message())),
            Told::Refused(by) => ("the gateway refuses connections", by),
        };
        Some(Problem::new(told.reason(), format!("{what} ({failure}): {}", failure.advice())))
    }

    /// The counts of the share's problem, if it is `problem`.
    pub(crate) fn not_served(&self, share: ShareId, problem: Reason) -> Option<NotServed> {
        let outcomes = self.0.get(&share)?;
        let (count, of, sources) = match outcomes.told().filter(|told| told.reason() == problem)? {
            Told::Failing(failure) => {
                let window: Vec<_> = outcomes.window().collect();
                let count = window.iter().filter(|outcome| **outcome == Some(failure)).count();
                (count as u64, Some(window.len() as u64), Vec::new())
            }
            Told::Unanswered(_) => {
                (outcomes.unanswered.count(), Some(outcomes.unanswered.count()), Vec::new())
            }
            Told::Refused(_) => {
                let refused = outcomes.refused.as_ref()?;
                (refused.count, None, refused.sources.iter().copied().collect())
            }
        };
        Some(NotServed { count, of, sources })
    }
}

impl Outcomes {
    fn take(&mut self, delta: &TrafficDelta, now: Timestamp) {
        self.unanswered.take(delta, now);
        let (refusals, failures): (Vec<_>, Vec<_>) =
            delta.failures.iter().partition(|(reason, _)| reason.is_refusal());
        if let Some((by, _)) = refusals.iter().max_by_key(|(_, count)| **count) {
            let new = || Refused { by: **by, count: 0, sources: BTreeSet::new(), last: now };
            let refused = self.refused.get_or_insert_with(new);
            refused.last = now;
            refused.count += refusals.iter().map(|(_, count)| **count).sum::<u64>();
            refused.sources.extend(&delta.refused_sources);
            while refused.sources.len() > SOURCES {
                refused.sources.pop_last();
            }
        }
        let ended = delta.connections + failures.iter().map(|(_, count)| **count).sum::<u64>();
        if ended == 0 {
            return;
        }
        let failures = failures.into_iter().map(|(reason, count)| (Some(*reason), *count));
        for (outcome, count) in [(None, delta.connections)].into_iter().chain(failures) {
            // A report has no order: of very many, each kind gets its part.
            let part = if ended > LAST as u64 { scaled(count, ended) } else { count };
            self.last.extend((0..part).map(|_| (now, outcome)));
        }
        let excess = self.last.len().saturating_sub(LAST);
        self.last.drain(..excess);
        self.judge(delta.connections > 0);
    }

    /// The outcomes that are not outdated.
    fn window(&self) -> impl Iterator<Item = Option<FailureReason>> {
        self.last.iter().enumerate().filter_map(|(n, (at, outcome))| {
            let mut later = self.last.iter().skip(n);
            let is_outdated =
                later.any(|(then, other)| other != outcome && then.duration_since(*at) >= OUTDATED);
            (!is_outdated).then_some(*outcome)
        })
    }

    /// Only served connections end a failure.
    fn judge(&mut self, has_served: bool) {
        let (mut all, mut served, mut counts) = (0, 0, BTreeMap::<FailureReason, usize>::new());
        for outcome in self.window() {
            all += 1;
            match outcome {
                None => served += 1,
                Some(reason) => *counts.entry(reason).or_default() += 1,
            }
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let majority = most.filter(|(_, count)| count * 2 > all).map(|(reason, _)| reason);
        self.failing = match self.failing {
            None => majority.filter(|_| all >= FEWEST),
            Some(_) if has_served && served * 2 >= all => None,
            before => before,
        };
    }

    /// Connections are served again, as far as is known.
    fn serves(&mut self) {
        self.last.clear();
        self.failing = None;
    }

    /// A failure and a missing answer concern all clients; a refusal, some.
    fn told(&self) -> Option<Told> {
        let failing = self.failing.map(Told::Failing);
        let unanswered = || self.unanswered.told().map(Told::Unanswered);
        failing.or_else(unanswered).or_else(|| Some(Told::Refused(self.refused.as_ref()?.by)))
    }
}

impl Told {
    fn reason(self) -> Reason {
        match self {
            Self::Failing(_) => Reason::ConnectionsFail,
            Self::Unanswered(_) => Reason::ConnectionsUnanswered,
            Self::Refused(_) => Reason::ConnectionsRefused,
        }
    }
}

/// The part of [`LAST`] that `count` of `all` has, rounded.
fn scaled(count: u64, all: u64) -> u64 {
    let last = LAST as u64;
    count.saturating_mul(last).saturating_add(all / 2) / all
}
