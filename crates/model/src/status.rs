//! The status of a tunnel or a share. It is decided here and nowhere else.

use jiff::{SignedDuration, Timestamp};

use crate::{Detail, Generation, Problem, Reason, declare::serde_as_text};

crate::text_enum!(
    /// The provisioning status of a tunnel or a share.
    Status {
        New = "NEW",
        Deployed = "DEPLOYED",
        Error = "ERROR",
        /// A gateway reports that it serves nothing of the row, because the row, or a share's tunnel, is disabled.
        Disabled = "DISABLED",
        Deleting = "DELETING",
        Deleted = "DELETED",
    }
);

impl Status {
    /// `false` once a DELETE was accepted.
    pub fn is_live(self) -> bool {
        !matches!(self, Self::Deleting | Self::Deleted)
    }

    /// The detail of a row without a problem: it was just written and nothing was observed since, or it is deleted.
    pub fn waiting(self, since: Timestamp) -> Option<Detail> {
        let problem = match self {
            Self::New => Problem::new(Reason::Pending, crate::pending_change!()),
            Self::Deleting => Problem::new(Reason::Pending, crate::pending_removal!()),
            Self::Deleted => deleted(),
            Self::Deployed | Self::Error | Self::Disabled => return None,
        };
        Some(Detail { problem, since })
    }
}

serde_as_text!(Status);

/// Messages of [`Status::waiting`], as literals: lists sort and filter by them in SQL.
#[macro_export]
macro_rules! pending_change {
    () => {
        "the gateway has not reported this change yet"
    };
}
#[macro_export]
macro_rules! pending_removal {
    () => {
        "the gateway has not reported the removal yet"
    };
}
#[macro_export]
macro_rules! deletion_complete {
    () => {
        "it was deleted, and nothing of it is left at the gateway"
    };
}

/// The part of a row that this module decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub status: Status,
    /// When the status last changed.
    pub since: Timestamp,
    /// The newest generation that a gateway reported as ready. With `DEPLOYED` and `DISABLED`, it is the row's own.
    pub observed_generation: Option<Generation>,
    pub detail: Option<Detail>,
}

impl Standing {
    /// Whether a connection that is allowed would be served now, as far as is known: nothing impairs the row.
    pub fn serves(&self) -> bool {
        let reason = self.detail.as_ref().map(|detail| detail.problem.reason);
        self.status == Status::Deployed && reason.is_none_or(Reason::is_warning)
    }

    /// A row that was just created or changed.
    pub fn new(now: Timestamp, observed_generation: Option<Generation>) -> Self {
        Self { status: Status::New, since: now, observed_generation, detail: Status::New.waiting(now) }
    }
}

/// What a gateway reports of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// Nothing: since `since` the gateway's link is down, or up without a report. `drains`: it has announced that it stops.
    Silent { since: Timestamp, drains: bool },
    /// Nothing: no server has a link to the gateway since `since`. It is a process of its own, and goes on with what it has.
    /// `is_linked`: it has one since then, and has not reported yet.
    Unreachable { since: Timestamp, is_linked: bool },
    /// The gateway has received the row and, since `since`, has not determined its state.
    Looking { since: Timestamp },
    /// The generation that works, and the problem, if there is one.
    Seen { ready: Option<Generation>, problem: Option<Problem> },
    /// The gateway serves nothing of the row.
    Gone,
}

/// Time limits of statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From an accepted write to `ERROR`.
    pub provisioning: SignedDuration,
    /// From the gateway's silence to `ERROR` of a `DEPLOYED` row: long enough for a restart.
    pub silence: SignedDuration,
    /// From the loss of a gateway's link to statuses that say so: long enough for the gateway to find another server.
    pub unreachable: SignedDuration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let [provisioning, silence, unreachable] = [30, 3, 30].map(SignedDuration::from_secs);
        Self { provisioning, silence, unreachable }
    }
}

/// The standing, at `now`, of a row of `generation` whose standing was `current`, given what its gateway reports. Total and
/// pure.
pub fn next(
    current: &Standing,
    generation: Generation,
    seen: &Observation,
    deadlines: Deadlines,
    now: Timestamp,
) -> Standing {
    let (status, ready, problem) = match (current.status, seen) {
        (Status::Deleted, _) => return current.clone(),
        (Status::Deleting, Observation::Gone) => (Status::Deleted, None, Some(deleted())),
        (Status::Deleting, Observation::Silent { .. }) => {
            (Status::Deleting, None, Some(offline("it is removed as soon as the gateway is back")))
        }
        (_, Observation::Unreachable { since, is_linked }) => {
            return without_report(current, (*since, *is_linked), deadlines, now);
        }
        (Status::Deleting, Observation::Looking { .. } | Observation::Seen { .. }) => {
            let failing = match seen {
                Observation::Seen { problem, .. } => {
                    problem.clone().filter(|p| p.reason == Reason::TunnelFailed)
                }
                Observation::Looking { .. }
                | Observation::Silent { .. }
                | Observation::Unreachable { .. }
                | Observation::Gone => None,
            };
            let removing = || Problem::new(Reason::Pending, "the gateway is removing it");
            (Status::Deleting, None, Some(failing.unwrap_or_else(removing)))
        }
        (
            Status::New | Status::Deployed | Status::Error | Status::Disabled,
            Observation::Seen { ready, problem },
        ) if *ready == Some(generation) => {
            let is_disabled = problem.as_ref().is_some_and(|problem| problem.reason == Reason::Disabled);
            (if is_disabled { Status::Disabled } else { Status::Deployed }, *ready, problem.clone())
        }
        // A gateway that is away serves nothing of it either.
        (Status::Disabled, Observation::Silent { .. }) => return current.clone(),
        (
            status @ (Status::Deployed | Status::Disabled),
            Observation::Silent { since, .. } | Observation::Looking { since },
        ) if now.duration_since(*since) < deadlines.silence => {
            // A restart of the control plane does not stop traffic, so the status stays for a time.
            (status, current.observed_generation, current.detail.as_ref().map(|d| d.problem.clone()))
        }
        (status @ (Status::New | Status::Deployed | Status::Error | Status::Disabled), seen) => {
            // What has expired, or has lost its address, is served by no wait.
            let is_final = matches!(seen, Observation::Seen { problem: Some(problem), .. }
                if matches!(problem.reason, Reason::Expired | Reason::PeerAddressTaken));
            let late = is_final || now.duration_since(current.since) >= deadlines.provisioning;
            let status = match status {
                Status::New if !late => Status::New,
                // The share's tunnel is enabled again.
                Status::Disabled if !is_final => Status::New,
                _ => Status::Error,
            };
            let (ready, problem) = not_ready(seen);
            (status, ready, Some(problem))
        }
    };
    current.followed_by(status, ready, problem, now)
}

impl Standing {
    fn followed_by(
        &self,
        status: Status,
        ready: Option<Generation>,
        problem: Option<Problem>,
        now: Timestamp,
    ) -> Self {
        let detail = problem.map(|problem| match &self.detail {
            Some(old) if old.problem.reason == problem.reason => Detail { problem, since: old.since },
            _ => Detail { problem, since: now },
        });
        Self {
            status,
            since: if status == self.status { self.since } else { now },
            observed_generation: ready.or(self.observed_generation),
            detail,
        }
    }
}

/// What was deployed is served on, as far as is known; what was written meanwhile waits, and is an error by its deadline.
fn without_report(
    current: &Standing,
    (since, is_linked): (Timestamp, bool),
    deadlines: Deadlines,
    now: Timestamp,
) -> Standing {
    // With or without a gateway, these stay true.
    let is_final =
        |detail: &Detail| matches!(detail.problem.reason, Reason::Expired | Reason::PeerAddressTaken);
    if current.detail.as_ref().is_some_and(is_final) {
        return current.clone();
    }
    let waits_since = if is_linked { current.since.max(since) } else { current.since };
    let is_late = current.status == Status::New && now.duration_since(waits_since) >= deadlines.provisioning;
    if !is_late && now.duration_since(since) < deadlines.unreachable {
        return current.clone();
    }
    let then = match current.status {
        Status::Deployed => "it was serving before, and goes on with what it has",
        Status::Deleting => "it is removed as soon as the gateway reports",
        Status::New | Status::Error => "what was written is served as soon as the gateway reports",
        Status::Disabled | Status::Deleted => "nothing newer is known",
    };
    let message = match is_linked {
        true => {
            format!("the gateway is linked to a server since {since:.0}, and has not reported yet; {then}")
        }
        false => format!("no server has a link to the gateway since {since:.0}; {then}"),
    };
    let status = if is_late { Status::Error } else { current.status };
    let problem = Problem::new(Reason::GatewayUnreachable, message);
    current.followed_by(status, current.observed_generation, Some(problem), now)
}

/// The generation that works, and why the newest one does not.
fn not_ready(seen: &Observation) -> (Option<Generation>, Problem) {
    let unknown = || Problem::new(Reason::Pending, crate::pending_change!());
    match seen {
        Observation::Silent { drains: true, .. } => (None, draining()),
        Observation::Silent { drains: false, .. } => (None, offline("start it, or see its log")),
        Observation::Seen { ready, problem } => (*ready, problem.clone().unwrap_or_else(unknown)),
        Observation::Looking { .. } | Observation::Unreachable { .. } | Observation::Gone => {
            (None, unknown())
        }
    }
}

fn deleted() -> Problem {
    Problem::new(Reason::Deleted, crate::deletion_complete!())
}

fn draining() -> Problem {
    let message = "the gateway is stopping: it accepts no new connections, and established ones have the time of \
                   --drain; start it again afterwards";
    Problem::new(Reason::GatewayOffline, message)
}

fn offline(then: &str) -> Problem {
    Problem::new(Reason::GatewayOffline, format!("no gateway of the location is connected; {then}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{option, prelude::*};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn generation() -> impl Strategy<Value = Generation> {
        (1u64..4).prop_map(Generation)
    }

    fn problem() -> impl Strategy<Value = Problem> {
        proptest::sample::select(&Reason::ALL[..]).prop_map(|r| Problem::new(r, "why"))
    }

    fn seen() -> impl Strategy<Value = Observation> {
        prop_oneof![
            (0i64..100, any::<bool>()).prop_map(|(s, drains)| Observation::Silent { since: at(s), drains }),
            (0i64..100).prop_map(|s| Observation::Looking { since: at(s) }),
            (0i64..200, any::<bool>())
                .prop_map(|(s, is_linked)| Observation::Unreachable { since: at(s), is_linked }),
            (option::of(generation()), option::of(problem()))
                .prop_map(|(ready, problem)| Observation::Seen { ready, problem }),
            Just(Observation::Gone),
        ]
    }

    fn standing() -> impl Strategy<Value = Standing> {
        (
            proptest::sample::select(&Status::ALL[..]),
            0i64..100,
            option::of(generation()),
            option::of((problem(), 0i64..100)),
        )
            .prop_map(|(status, since, observed_generation, detail)| Standing {
                status,
                since: at(since),
                observed_generation,
                detail: detail.map(|(problem, since)| Detail { problem, since: at(since) }),
            })
    }

    proptest! {
        #[test]
        fn the_rules_of_statuses_hold(current in standing(), g in generation(), seen in seen(), now in 100i64..200) {
            let now = at(now);
            let next = super::next(&current, g, &seen, Deadlines::default(), now);
            // DELETED is final, DELETING leads only to DELETED, and no status but DISABLED becomes NEW without a write.
            if current.status == Status::Deleted { prop_assert_eq!(&next, &current); }
            if current.status == Status::Deleting { prop_assert!(!next.status.is_live()); }
            if next.status == Status::New { prop_assert!(matches!(current.status, Status::New | Status::Disabled)); }
            // A status becomes DISABLED only if a gateway reports it, of the current generation.
            if next.status == Status::Disabled && current.status != Status::Disabled {
                let is_seen = matches!(&seen, Observation::Seen { ready, problem: Some(problem) }
                    if *ready == Some(g) && problem.reason == Reason::Disabled);
                prop_assert!(is_seen);
            }
            if next.status == Status::Deleted && current.status != Status::Deleted {
                prop_assert_eq!(&seen, &Observation::Gone);
                prop_assert_eq!(current.status, Status::Deleting);
            }
            // A status becomes DEPLOYED only if a gateway reports the current generation as ready.
            if next.status == Status::Deployed && current.status != Status::Deployed {
                let is_seen = matches!(&seen, Observation::Seen { ready, .. } if *ready == Some(g));
                prop_assert!(is_seen);
            }
            // Every status except DEPLOYED has a detail with the reason.
            let is_kept = current.status == Status::Disabled || matches!(seen, Observation::Unreachable { .. });
            let has_detail = !is_kept || current.detail.is_some();
            if next.status != Status::Deployed && current.status != Status::Deleted && has_detail {
                prop_assert!(next.detail.is_some());
            }
            // `since` is the time of the last change of the status.
            prop_assert_eq!(next.since, if next.status == current.status { current.since } else { now });
        }

        #[test]
        fn a_second_decision_is_the_same(current in standing(), g in generation(), seen in seen(), now in 100i64..200) {
            let once = super::next(&current, g, &seen, Deadlines::default(), at(now));
            let twice = super::next(&once, g, &seen, Deadlines::default(), at(now));
            prop_assert_eq!(once, twice);
        }
    }

    #[test]
    fn a_disabled_row_stays_so_until_a_gateway_reports_otherwise() {
        let g = Generation::FIRST;
        let step = |from: &Standing, seen, second| next(from, g, &seen, Deadlines::default(), at(second));
        let seen = |ready, problem| Observation::Seen { ready, problem };
        let new = Standing::new(at(0), None);
        let disabled = step(&new, seen(Some(g), Some(Problem::disabled())), 1);
        assert_eq!((disabled.status, disabled.since, disabled.serves()), (Status::Disabled, at(1), false));
        assert_eq!(disabled.detail.as_ref().map(|d| d.problem.clone()), Some(Problem::disabled()));
        // An old generation that was disabled is none.
        assert_eq!(
            step(&new, seen(Some(Generation::new(0)), Some(Problem::disabled())), 1).status,
            Status::New
        );
        let away = Observation::Silent { since: at(2), drains: false };
        assert_eq!(step(&disabled, away, 1000), disabled);
        assert_eq!(step(&disabled, Observation::Looking { since: at(2) }, 4).status, Status::Disabled);
        // Its tunnel is enabled again, and is not ready at once.
        let not_ready = Problem::new(Reason::TunnelNotReady, "not yet");
        let again = step(&disabled, seen(None, Some(not_ready.clone())), 1000);
        assert_eq!((again.status, again.since), (Status::New, at(1000)));
        assert_eq!(step(&again, seen(None, Some(not_ready)), 1030).status, Status::Error);
        assert_eq!(step(&disabled, seen(Some(g), None), 1000).status, Status::Deployed);
    }

    #[test]
    fn what_a_gateway_without_a_link_serves_keeps_its_status_and_says_so() {
        let g = Generation::FIRST;
        let away = Observation::Unreachable { since: at(10), is_linked: false };
        let step = |from: &Standing, second| next(from, g, &away, Deadlines::default(), at(second));
        let new = Standing::new(at(0), None);
        let seen = Observation::Seen { ready: Some(g), problem: None };
        let deployed = next(&new, g, &seen, Deadlines::default(), at(1));
        assert_eq!(step(&deployed, 39), deployed, "it may find another server");
        let told = step(&deployed, 40);
        assert_eq!((told.status, told.since, told.serves()), (Status::Deployed, at(1), false));
        let detail = told.detail.clone().unwrap();
        assert_eq!((detail.problem.reason, detail.since), (Reason::GatewayUnreachable, at(40)));
        assert!(detail.problem.message.contains("was serving before"), "{}", detail.problem.message);
        assert_eq!(step(&told, 4000), told);
        assert_eq!(next(&told, g, &seen, Deadlines::default(), at(4001)).detail, None);
        // A change that came too late for the gateway.
        let changed = Standing::new(at(20), Some(g));
        assert_eq!(step(&changed, 39), changed);
        assert_eq!(step(&changed, 45).status, Status::New);
        let late = step(&changed, 50);
        assert_eq!(
            (late.status, late.detail.unwrap().problem.reason),
            (Status::Error, Reason::GatewayUnreachable)
        );
        // It has linked, and has the time of a change to say what it has.
        let linked = Observation::Unreachable { since: at(45), is_linked: true };
        assert_eq!(next(&changed, g, &linked, Deadlines::default(), at(74)), changed);
        assert_eq!(next(&changed, g, &linked, Deadlines::default(), at(75)).status, Status::Error);
        // What stays true without a gateway is not hidden.
        let expired = Problem::new(Reason::Expired, "over");
        let expired =
            Standing { detail: Some(Detail { problem: expired, since: at(2) }), ..deployed.clone() };
        assert_eq!(step(&expired, 1000), expired);
        let deleting = Standing { status: Status::Deleting, ..deployed };
        assert_eq!(step(&deleting, 100).status, Status::Deleting);
    }

    #[test]
    fn an_expired_share_is_an_error_at_once_and_recovers() {
        let g = Generation::FIRST;
        let step = |from: &Standing, seen, second| next(from, g, &seen, Deadlines::default(), at(second));
        let expired =
            || Observation::Seen { ready: None, problem: Some(Problem::new(Reason::Expired, "over")) };
        let deployed = Observation::Seen { ready: Some(g), problem: None };
        let new = Standing::new(at(0), None);
        let error = step(&new, expired(), 1);
        assert_eq!(
            (error.status, error.detail.clone().map(|d| d.problem.reason)),
            (Status::Error, Some(Reason::Expired))
        );
        let served = step(&error, deployed, 2);
        assert_eq!((served.status, step(&served, expired(), 3).status), (Status::Deployed, Status::Error));
        let disabled = Standing { status: Status::Disabled, detail: None, ..served };
        assert_eq!(step(&disabled, expired(), 4).status, Status::Error);
    }

    #[test]
    fn a_share_passes_through_its_statuses() {
        let g = Generation::FIRST;
        let step = |from: &Standing, seen, second| next(from, g, &seen, Deadlines::default(), at(second));
        let offline = || Observation::Seen {
            ready: None,
            problem: Some(Problem::new(Reason::AgentOffline, "no agent")),
        };
        let new = Standing::new(at(0), None);
        let waiting = step(&new, offline(), 29);
        assert_eq!(waiting.status, Status::New);
        let error = step(&waiting, offline(), 30);
        assert_eq!((error.status, error.since), (Status::Error, at(30)));
        assert_eq!(
            error.detail.as_ref().map(|d| (d.problem.reason, d.since)),
            Some((Reason::AgentOffline, at(29)))
        );
        let deployed = step(&error, Observation::Seen { ready: Some(g), problem: None }, 40);
        assert_eq!((deployed.status, deployed.detail.clone()), (Status::Deployed, None));
        assert_eq!(
            step(&deployed, Observation::Silent { since: at(41), drains: false }, 43).status,
            Status::Deployed
        );
        assert_eq!(
            step(&deployed, Observation::Silent { since: at(41), drains: false }, 44).status,
            Status::Error
        );
        assert_eq!(step(&deployed, offline(), 41).status, Status::Error);
        let deleting = Standing { status: Status::Deleting, ..deployed };
        assert_eq!(
            step(&deleting, Observation::Seen { ready: Some(g), problem: None }, 50).status,
            Status::Deleting
        );
        assert_eq!(step(&deleting, Observation::Gone, 50).status, Status::Deleted);
    }
}
