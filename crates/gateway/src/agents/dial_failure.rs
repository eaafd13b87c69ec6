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
        match self {
            Self::NoAgent | Self::Refused(RefusalReason::Draining) => FailureReason::NoAgent,
            Self::NoCarrier => FailureReason::NoCarrier,
            Self::Timeout => FailureReason::AgentTimeout,
            Self::Refused(RefusalReason::NotAssigned | RefusalReason::NotAllowed) => {
                FailureReason::AgentRefused
            }
            Self::Refused(RefusalReason::NameNotFound) => FailureReason::NameNotFound,
            Self::Refused(RefusalReason::ConnectionRefused) => FailureReason::ConnectionRefused,
            Self::Refused(RefusalReason::TimedOut) => FailureReason::DialTimeout,
            Self::Refused(RefusalReason::Unreachable) => FailureReason::TargetUnreachable,
        }
    }

    /// The result for the agent.
    pub(super) fn outcome(self) -> StreamOutcome {
        match self {
            Self::NoAgent => StreamOutcome::Gone,
            Self::Refused(RefusalReason::Draining) => StreamOutcome::Draining,
            Self::NoCarrier | Self::Timeout => StreamOutcome::AgentFails,
            Self::Refused(_) => StreamOutcome::TargetFails,
        }
    }

    /// The reason in the share's status.
    pub(super) fn status(self) -> Reason {
        match self {
            Self::Refused(reason) if reason.is_of_the_target() => Reason::TargetUnreachable,
            Self::Refused(RefusalReason::NotAllowed) => Reason::AgentRefused,
            Self::Refused(RefusalReason::NotAssigned) => Reason::AgentPending,
            // The dial of an agent times out long before its answer is late.
            Self::Refused(_) | Self::NoAgent | Self::NoCarrier | Self::Timeout => Reason::AgentOffline,
        }
    }
}
