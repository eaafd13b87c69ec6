//! The reasons why no stream was opened.

use wicketgate_model::{FailureReason, Reason};
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

    /// The reason in the share's status.
    pub(super) fn status(&self) -> Reason {
        self.meaning().2
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
            },
        }
    }
}
