//! How the last connections of each share ended: what is wrong if most of them failed in the same way, and which clients
//! the gateway refused.
//!
//! Probes see a target from the agent; this is what clients saw. Invariants: silence proves nothing, so a failure remains
//! until a connection is served, an agent or a check reaches the target again, or nobody has connected for [`QUIET`]; and a
//! problem has no counts and keeps its kind, because each change of a problem is a change of the share's status.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};

use jiff::{SignedDuration, Timestamp};
use wicketgate_model::{FailureReason, Problem, Reason, ShareId, TrafficDelta};

/// Connections that are looked at. A few successes after a repair are the majority.
const LAST: usize = 10;
/// Fewer are no evidence: one client may have made a mistake.
const FEWEST: usize = 3;
/// A connection that ended otherwise, this much later, outweighs an older one.
const OUTDATED: SignedDuration = SignedDuration::from_secs(60);
/// How long a failure remains if nobody connects: longer than a repair and a look at it take, and short enough that a share
/// which is taken out of use for it comes back. Not every failure ends with a report: a burst may exhaust the carriers.
const QUIET: SignedDuration = SignedDuration::from_mins(15);
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
        for delta in deltas.iter().filter(|delta| delta.connections + delta.failed() > 0) {
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
        let (reason, failure) = self.0.get(&share)?.told()?;
        let what = match reason {
            Reason::ConnectionsRefused => "the gateway refuses connections",
            _ => "most of the last connections were not served",
        };
        Some(Problem::new(reason, format!("{what} ({failure}): {}", failure.advice())))
    }

    /// The counts of the share's problem, if it is `problem`.
    pub(crate) fn not_served(&self, share: ShareId, problem: Reason) -> Option<NotServed> {
        let outcomes = self.0.get(&share)?;
        let (reason, failure) = outcomes.told()?;
        if reason != problem {
            return None;
        }
        if let (Reason::ConnectionsRefused, Some(refused)) = (reason, &outcomes.refused) {
            let sources = refused.sources.iter().copied().collect();
            return Some(NotServed { count: refused.count, of: None, sources });
        }
        let window: Vec<_> = outcomes.window().collect();
        let count = window.iter().filter(|outcome| **outcome == Some(failure)).count();
        Some(NotServed { count: count as u64, of: Some(window.len() as u64), sources: Vec::new() })
    }
}

impl Outcomes {
    fn take(&mut self, delta: &TrafficDelta, now: Timestamp) {
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

    /// What is wrong, and with which connections. A failure concerns all clients; a refusal, some.
    fn told(&self) -> Option<(Reason, FailureReason)> {
        let failing = self.failing.map(|reason| (Reason::ConnectionsFail, reason));
        failing.or_else(|| Some((Reason::ConnectionsRefused, self.refused.as_ref()?.by)))
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
    use proptest::prelude::*;
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
        let expected = "most of the last connections were not served (connection-refused): ";
        assert!(problem.message.starts_with(expected), "{}", problem.message);
        let counted = recent.not_served(share(), Reason::ConnectionsFail).unwrap();
        assert_eq!((counted.count, counted.of), (3, Some(3)));

        // More of the same changes the counts, and nothing that is compared.
        assert!(recent.take(&ended(1, &refused), now).is_empty());
        assert_eq!(recent.problem(share()), Some(problem));
        let counted = recent.not_served(share(), Reason::ConnectionsFail).unwrap();
        assert_eq!((counted.count, counted.of), (4, Some(5)));

        // A repaired target: as soon as as many connections succeed as fail.
        assert_eq!(recent.take(&ended(3, &[]), now), [share()]);
        assert_eq!(recent.problem(share()), None);
    }

    #[test]
    fn a_failure_remains_until_something_shows_otherwise() {
        let (mut recent, mut now) = (RecentConnections::default(), Timestamp::UNIX_EPOCH);
        recent.take(&ended(0, &[(FailureReason::DialTimeout, 3)]), now);
        now += 14.minutes();
        assert!(recent.expire(now).is_empty(), "nobody has connected");
        assert!(recent.take(&ended(0, &[(FailureReason::DialTimeout, 1)]), now).is_empty());
        assert_eq!(recent.problem(share()).map(|p| p.reason), Some(Reason::ConnectionsFail));
        // The old failures are outdated by one success, but not a recent one.
        recent.take(&ended(1, &[]), now);
        assert_eq!(recent.problem(share()), None);
        recent.take(&ended(0, &[(FailureReason::DialTimeout, 3)]), now);
        assert!(recent.mended(share()) && recent.problem(share()).is_none());
        // No report ends this one.
        recent.take(&ended(0, &[(FailureReason::NoCarrier, 3)]), now);
        assert!(recent.expire(now + 14.minutes()).is_empty());
        assert_eq!(recent.expire(now + 15.minutes()), [share()]);
    }

    #[test]
    fn refused_clients_are_named_and_hide_no_failure() {
        let (mut recent, now) = (RecentConnections::default(), Timestamp::UNIX_EPOCH);
        let sources: Vec<IpAddr> = (1..20).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        let [delta] = ended(100, &[(FailureReason::SourceNotAllowed, 900)]);
        let delta = TrafficDelta { refused_sources: sources.iter().copied().collect(), ..delta };
        assert_eq!(recent.take(&[delta], now), [share()]);
        let problem = recent.problem(share()).unwrap();
        assert_eq!(problem.reason, Reason::ConnectionsRefused);
        assert!(problem.message.contains("allowedSources"), "{}", problem.message);
        let counted = recent.not_served(share(), Reason::ConnectionsRefused).unwrap();
        assert_eq!((counted.count, counted.of, &counted.sources[..]), (900, None, &sources[..SOURCES]));
        recent.take(&ended(0, &[(FailureReason::NoAgent, 9), (FailureReason::SourceNotAllowed, 50)]), now);
        assert_eq!(recent.problem(share()).unwrap().reason, Reason::ConnectionsFail);
        recent.mended(share());
        assert!(recent.expire(now + 9.minutes()).is_empty());
        assert_eq!(recent.expire(now + 10.minutes()), [share()]);
        assert_eq!(recent.problem(share()), None);
    }

    #[test]
    fn failures_of_different_kinds_are_no_majority() {
        let mut recent = RecentConnections::default();
        let mixed = [(FailureReason::ConnectionRefused, 2), (FailureReason::DialTimeout, 2)];
        recent.take(&ended(0, &mixed), Timestamp::UNIX_EPOCH);
        assert_eq!(recent.problem(share()), None);
    }

    /// What happens to a share.
    #[derive(Debug, Clone)]
    enum Step {
        /// A connection was served, failed in one of two ways, or was refused.
        Ended(Option<FailureReason>),
        /// Seconds.
        Pass(i64),
        Mended,
        Changed,
    }

    fn step() -> impl Strategy<Value = Step> {
        use FailureReason::{ConnectionRefused, DialTimeout, ShareFull};
        prop_oneof![
            4 => Just(Step::Ended(None)),
            6 => Just(Step::Ended(Some(ConnectionRefused))),
            2 => Just(Step::Ended(Some(DialTimeout))),
            1 => Just(Step::Ended(Some(ShareFull))),
            4 => (0i64..100).prop_map(Step::Pass),
            2 => Just(Step::Pass(1000)),
            1 => Just(Step::Mended),
            1 => Just(Step::Changed),
        ]
    }

    /// The same, told by what must never be: the whole history, and the rules as sentences.
    #[derive(Default)]
    struct Reference {
        history: Vec<(i64, Option<FailureReason>)>,
        fails: Option<FailureReason>,
        refused_at: Option<i64>,
    }

    impl Reference {
        /// The last ten connections, without those that one of a different kind outdated.
        fn window(&self) -> Vec<Option<FailureReason>> {
            let last = &self.history[self.history.len().saturating_sub(10)..];
            let mut window = Vec::new();
            for (n, (at, kind)) in last.iter().enumerate() {
                let newest_other = last[n..].iter().rfind(|(_, other)| other != kind);
                if newest_other.is_none_or(|(then, _)| then - at < 60) {
                    window.push(*kind);
                }
            }
            window
        }

        fn ended(&mut self, now: i64, kind: Option<FailureReason>) {
            if kind.is_some_and(FailureReason::is_refusal) {
                self.refused_at = Some(now);
                return;
            }
            self.history.push((now, kind));
            let window = self.window();
            let of = |kind| window.iter().filter(|other| **other == kind).count();
            let over_half =
                FailureReason::ALL.into_iter().find(|reason| of(Some(*reason)) * 2 > window.len());
            // It begins with three connections, and ends with a served one after which half of them are served.
            if self.fails.is_none() && window.len() >= 3 {
                self.fails = over_half;
            } else if kind.is_none() && of(None) * 2 >= window.len() {
                self.fails = None;
            }
        }

        fn passed(&mut self, now: i64) {
            let newest = self.history.last().map_or(now, |(at, _)| *at);
            if self.fails.is_some() && now - newest >= 15 * 60 {
                self.mended();
            }
            self.refused_at = self.refused_at.filter(|at| now - at < 600);
        }

        fn mended(&mut self) {
            self.history.clear();
            self.fails = None;
        }
    }

    proptest! {
        #[test]
        fn it_is_as_the_rules_say(steps in proptest::collection::vec(step(), 1..60)) {
            let (mut recent, mut reference, mut now) = (RecentConnections::default(), Reference::default(), 0);
            let at = |second: i64| Timestamp::from_second(second).unwrap();
            for step in steps {
                let before = recent.problem(share());
                let mut changed = Vec::new();
                match step.clone() {
                    Step::Ended(kind) => {
                        let failures: Vec<_> = kind.map(|kind| (kind, 1)).into_iter().collect();
                        changed = recent.take(&ended(u64::from(kind.is_none()), &failures), at(now));
                        reference.ended(now, kind);
                    }
                    Step::Pass(seconds) => {
                        now += seconds;
                        changed = recent.expire(at(now));
                        reference.passed(now);
                    }
                    Step::Mended => {
                        changed.extend(recent.mended(share()).then(share));
                        reference.mended();
                    }
                    Step::Changed => {
                        recent.forget(share());
                        changed.extend(before.is_some().then(share));
                        reference = Reference::default();
                    }
                }
                let after = recent.problem(share());
                let fails = reference.fails.map(|_| Reason::ConnectionsFail);
                let refused = reference.refused_at.map(|_| Reason::ConnectionsRefused);
                prop_assert_eq!(after.as_ref().map(|p| p.reason), fails.or(refused));
                if let (Some(problem), Some(reason)) = (&after, reference.fails) {
                    prop_assert!(problem.message.contains(reason.as_str()), "{}", problem.message);
                }
                prop_assert_eq!(changed.is_empty(), before == after, "each change is told, and nothing else");
                let fail = |problem: &Option<Problem>| problem.as_ref().is_some_and(|p| p.reason == Reason::ConnectionsFail);
                if fail(&before) && !fail(&after) {
                    prop_assert!(!matches!(step, Step::Ended(Some(_))), "a failure mended it");
                }
            }
        }
    }
}
