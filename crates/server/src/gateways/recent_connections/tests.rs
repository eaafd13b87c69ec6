//! What is told of a share, by example and against its rules.

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
    assert!(recent.expire(now).is_empty(), "no client has connected");
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
        let over_half = FailureReason::ALL.into_iter().find(|reason| of(Some(*reason)) * 2 > window.len());
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
