//! The status of a tunnel or a share, decided in one place. Nobody else decides a status.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

use crate::declare::serde_as_text;

/// The count of accepted changes of a row, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(u64);

impl Generation {
    pub const FIRST: Self = Self(1);

    pub fn new(n: u64) -> Self {
        Self(n)
    }

    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

crate::text_enum!(
    /// The provisioning status of a tunnel or a share.
    Status { New = "NEW", Deployed = "DEPLOYED", Error = "ERROR", Deleting = "DELETING", Deleted = "DELETED" }
);

impl Status {
    /// `false` once a DELETE was accepted.
    pub fn is_live(self) -> bool {
        !matches!(self, Self::Deleting | Self::Deleted)
    }
}

crate::text_enum!(
    /// Why something is not as it should be. A closed list: programs act on it.
    Reason {
        /// The gateway has not reported yet.
        Pending = "Pending",
        /// No gateway of the location is linked to the server.
        GatewayOffline = "GatewayOffline",
        /// The gateway has as many tunnels as it can hold.
        GatewayFull = "GatewayFull",
        /// The gateway can't bring up the tunnel's namespace, addresses or IKE daemon.
        TunnelFailed = "TunnelFailed",
        /// The share's tunnel is not ready at the gateway.
        TunnelNotReady = "TunnelNotReady",
        /// Another program holds the ingress port.
        PortInUse = "PortInUse",
        /// The listener can't be bound for another reason.
        ListenerFailed = "ListenerFailed",
        /// No agent of the environment is connected.
        AgentOffline = "AgentOffline",
        /// No connected agent has acknowledged the share yet.
        AgentPending = "AgentPending",
        /// The agent's own allow list, or its check of the assignment, refuses the share.
        AgentRefused = "AgentRefused",
        /// The agent can't connect to the target.
        TargetUnreachable = "TargetUnreachable",
        /// It was deleted, and nothing of it is left at a gateway.
        Deleted = "Deleted",
    }
);
serde_as_text!(Status, Reason);

/// A reason, and the sentence for the person who reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub reason: Reason,
    pub message: String,
}

impl Problem {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    fn deleted() -> Self {
        Self::new(Reason::Deleted, crate::deletion_complete!())
    }
}

/// Messages of [`Detail::waiting`], as literals: lists sort and filter by them in SQL.
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

/// A problem, and since when its reason has been the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    pub problem: Problem,
    pub since: Timestamp,
}

impl Detail {
    /// What a row says that was just written, before anything was seen of it, or that is gone.
    pub fn waiting(status: Status, since: Timestamp) -> Option<Self> {
        let message = match status {
            Status::New => crate::pending_change!(),
            Status::Deleting => crate::pending_removal!(),
            Status::Deleted => return Some(Self { problem: Problem::deleted(), since }),
            Status::Deployed | Status::Error => return None,
        };
        Some(Self { problem: Problem::new(Reason::Pending, message), since })
    }
}

/// The part of a row that this module decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub status: Status,
    /// Since when the status has been what it is.
    pub since: Timestamp,
    /// The newest generation that was seen working. `DEPLOYED` implies that it is the row's own.
    pub observed_generation: Option<Generation>,
    pub detail: Option<Detail>,
}

impl Standing {
    /// A row that was just created or changed.
    pub fn new(now: Timestamp, observed_generation: Option<Generation>) -> Self {
        Self {
            status: Status::New,
            since: now,
            observed_generation,
            detail: Detail::waiting(Status::New, now),
        }
    }
}

/// What is known of a row's deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// The gateway has said nothing of it: since `since` its link is down, or up without a report.
    Silent { since: Timestamp },
    /// The gateway knows of it and, since `since`, is still finding out how it stands.
    Looking { since: Timestamp },
    /// The gateway's word: which generation works, and what is wrong.
    Seen { ready: Option<Generation>, problem: Option<Problem> },
    /// The gateway has nothing of it (any more).
    Gone,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// From an accepted write to `ERROR`.
    pub provisioning: SignedDuration,
    /// From the gateway's silence to `ERROR` of what was `DEPLOYED`: long enough for a restart.
    pub silence: SignedDuration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { provisioning: SignedDuration::from_secs(30), silence: SignedDuration::from_secs(3) }
    }
}

/// The standing of a row of `generation` that stood at `current`, at `now`, given what is seen of it.
/// Total and pure.
pub fn next(
    current: &Standing,
    generation: Generation,
    seen: &Observation,
    deadlines: Deadlines,
    now: Timestamp,
) -> Standing {
    let (status, ready, problem) = match (current.status, seen) {
        (Status::Deleted, _) => return current.clone(),
        (Status::Deleting, Observation::Gone) => (Status::Deleted, None, Some(Problem::deleted())),
        (Status::Deleting, Observation::Silent { .. }) => {
            (Status::Deleting, None, Some(offline("it is removed as soon as the gateway is back")))
        }
        (Status::Deleting, Observation::Looking { .. } | Observation::Seen { .. }) => {
            let failing = match seen {
                Observation::Seen { problem, .. } => {
                    problem.clone().filter(|p| p.reason == Reason::TunnelFailed)
                }
                Observation::Looking { .. } | Observation::Silent { .. } | Observation::Gone => None,
            };
            let removing = || Problem::new(Reason::Pending, "the gateway is removing it");
            (Status::Deleting, None, Some(failing.unwrap_or_else(removing)))
        }
        (Status::New | Status::Deployed | Status::Error, Observation::Seen { ready, problem })
            if *ready == Some(generation) =>
        {
            (Status::Deployed, *ready, problem.clone())
        }
        (Status::Deployed, Observation::Silent { since } | Observation::Looking { since })
            if now.duration_since(*since) < deadlines.silence =>
        {
            // Nothing is known against it yet, and a restart of the control plane does not stop traffic.
            (
                Status::Deployed,
                current.observed_generation,
                current.detail.as_ref().map(|d| d.problem.clone()),
            )
        }
        (status @ (Status::New | Status::Deployed | Status::Error), seen) => {
            let late = now.duration_since(current.since) >= deadlines.provisioning;
            let status = if status == Status::New && !late { Status::New } else { Status::Error };
            let problem = match seen {
                Observation::Silent { .. } => offline("start it, or see its log"),
                Observation::Seen { problem: Some(problem), .. } => problem.clone(),
                Observation::Seen { problem: None, .. } | Observation::Looking { .. } | Observation::Gone => {
                    Problem::new(Reason::Pending, crate::pending_change!())
                }
            };
            let ready = match seen {
                Observation::Seen { ready, .. } => *ready,
                Observation::Silent { .. } | Observation::Looking { .. } | Observation::Gone => None,
            };
            (status, ready, Some(problem))
        }
    };
    let detail = problem.map(|problem| match &current.detail {
        Some(old) if old.problem.reason == problem.reason => Detail { problem, since: old.since },
        _ => Detail { problem, since: now },
    });
    Standing {
        status,
        since: if status == current.status { current.since } else { now },
        observed_generation: ready.or(current.observed_generation),
        detail,
    }
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
            (0i64..100).prop_map(|s| Observation::Silent { since: at(s) }),
            (0i64..100).prop_map(|s| Observation::Looking { since: at(s) }),
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
            // DELETED is final, DELETING leads only to DELETED, and no status becomes NEW without a write.
            if current.status == Status::Deleted { prop_assert_eq!(&next, &current); }
            if current.status == Status::Deleting { prop_assert!(!next.status.is_live()); }
            if next.status == Status::New { prop_assert_eq!(current.status, Status::New); }
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
            if next.status != Status::Deployed && current.status != Status::Deleted { prop_assert!(next.detail.is_some()); }
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
        assert_eq!(step(&deployed, Observation::Silent { since: at(41) }, 43).status, Status::Deployed);
        assert_eq!(step(&deployed, Observation::Silent { since: at(41) }, 44).status, Status::Error);
        assert_eq!(step(&deployed, offline(), 41).status, Status::Error);
        let deleting = Standing { status: Status::Deleting, ..deployed };
        assert_eq!(
            step(&deleting, Observation::Seen { ready: Some(g), problem: None }, 50).status,
            Status::Deleting
        );
        assert_eq!(step(&deleting, Observation::Gone, 50).status, Status::Deleted);
    }
}
