//! The reasons why no stream was opened.

use wicketgate_model::{FailureReason, Problem, Reason};
use wicketgate_transport::frame::{RefusalReason, StreamRefusal};

/// Why no stream was opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialFailure {
    #[error("no connected agent has acknowledged the share")]
    NoAgent,
    #[error("the agent has disconnected")]
    Disconnected,
    #[error("the agent was barred")]
    Barred,
    #[error("the agent has no free carrier")]
    NoCarrier,
    #[error("the agent's carriers are broken")]
    BrokenCarriers,
    #[error("the agent did not answer in time")]
    Timeout,
    #[error(transparent)]
    Refused(#[from] StreamRefusal),
}

/// The result of a stream, as far as it concerns its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamOutcome {
    Well,
    /// The agent gives no carrier, or no answer.
    AgentFails,
    /// The agent does not reach the target.
    TargetFails,
    Draining,
    /// It has disconnected.
    Gone,
}

impl DialFailure {
    /// The reason in the metrics.
    pub(crate) fn metric(&self) -> FailureReason {
        self.meaning().0
    }

    /// The result for the agent.
    pub(super) fn outcome(&self) -> StreamOutcome {
        self.meaning().1
    }

    /// The problem in the share's status, with what to do.
    pub(super) fn problem(&self) -> Problem {
        let (failure, _, reason) = self.meaning();
        // A shortage is named with the limit to raise.
        let message = match failure {
            FailureReason::AgentExhausted => self.to_string(),
            _ => format!("{self}: {}", failure.advice()),
        };
        Problem::new(reason, message)
    }

    /// Like [`DialFailure::problem`], where what to do is told beside it.
    pub(super) fn bare_problem(&self) -> Problem {
        Problem::new(self.meaning().2, self.to_string())
    }

    fn meaning(&self) -> (FailureReason, StreamOutcome, Reason) {
        use FailureReason as Metric;
        use RefusalReason as Refusal;
        use StreamOutcome::{AgentFails, Draining, Gone, TargetFails};
        match self {
            Self::NoAgent | Self::Disconnected | Self::Barred => {
                (Metric::NoAgent, Gone, Reason::AgentOffline)
            }
            Self::NoCarrier | Self::BrokenCarriers => (Metric::NoCarrier, AgentFails, Reason::AgentOffline),
            // The dial of an agent times out long before its answer is late.
            Self::Timeout => (Metric::AgentTimeout, AgentFails, Reason::AgentOffline),
            Self::Refused(refusal) => match refusal.reason {
                Refusal::Draining => (Metric::NoAgent, Draining, Reason::AgentOffline),
                Refusal::NotAssigned => (Metric::AgentRefused, TargetFails, Reason::AgentPending),
                Refusal::NotAllowed => (Metric::AgentRefused, TargetFails, Reason::AgentRefused),
                Refusal::AgentExhausted => (Metric::AgentExhausted, TargetFails, Reason::AgentExhausted),
                Refusal::NameNotFound => (Metric::NameNotFound, TargetFails, Reason::TargetUnreachable),
                Refusal::ConnectionRefused => {
                    (Metric::ConnectionRefused, TargetFails, Reason::TargetUnreachable)
                }
                Refusal::TimedOut => (Metric::DialTimeout, TargetFails, Reason::TargetUnreachable),
                Refusal::Unreachable => (Metric::TargetUnreachable, TargetFails, Reason::TargetUnreachable),
                Refusal::NoNameServer => (Metric::NoNameServer, TargetFails, Reason::TargetUnreachable),
                Refusal::NoRoute => (Metric::NoRoute, TargetFails, Reason::TargetUnreachable),
                Refusal::NotPermitted => (Metric::NotPermitted, TargetFails, Reason::TargetUnreachable),
            },
        }
    }
}
