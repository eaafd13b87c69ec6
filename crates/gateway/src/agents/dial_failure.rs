//! The reasons why no stream was opened.

use super::roster::StreamOutcome;
use wicketgate_model::{FailureReason, Reason};
use wicketgate_transport::frame::RefusalReason;

/// Why no stream was opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct DialFailure {
    pub reason: DialFailureReason,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialFailureReason {
    /// No connected agent has acknowledged the share.
    NoAgent,
    /// The agent has no free carrier, or its carriers break.
    NoCarrier,
    /// The agent did not answer.
    Timeout,
    /// The agent refused the stream.
    Refused(RefusalReason),
}

impl DialFailure {
    pub(super) fn new(reason: DialFailureReason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

impl DialFailureReason {
    /// The reason in the metrics.
    pub(crate) fn metric(self) -> FailureReason {
        self.meaning().0
    }

    /// The result for the agent.
    pub(super) fn outcome(self) -> StreamOutcome {
        self.meaning().1
    }

    /// The reason in the share's status.
    pub(super) fn status(self) -> Reason {
        self.meaning().2
    }

    fn meaning(self) -> (FailureReason, StreamOutcome, Reason) {
        use FailureReason as Metric;
        use RefusalReason as Refusal;
        use StreamOutcome::{AgentFails, Draining, Gone, TargetFails};
        match self {
            Self::NoAgent => (Metric::NoAgent, Gone, Reason::AgentOffline),
            Self::NoCarrier => (Metric::NoCarrier, AgentFails, Reason::AgentOffline),
            // The dial of an agent times out long before its answer is late.
            Self::Timeout => (Metric::AgentTimeout, AgentFails, Reason::AgentOffline),
            Self::Refused(refusal) => match refusal {
                Refusal::Draining => (Metric::NoAgent, Draining, Reason::AgentOffline),
                Refusal::NotAssigned => (Metric::AgentRefused, TargetFails, Reason::AgentPending),
                Refusal::NotAllowed => (Metric::AgentRefused, TargetFails, Reason::AgentRefused),
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
