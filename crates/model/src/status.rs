//! The status of a tunnel or a share. It is decided here and nowhere else.

mod flapping;

pub use flapping::Flapping;

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
mod tests;
