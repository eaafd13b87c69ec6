//! The frames of a carrier. Each frame is one TLS record and starts with its type.
//!
//! ```text
//! type u8 | payload, to the record's end
//! ```
//!
//! `OPEN` goes from the gateway to the agent, `OPENED` or `REFUSED` back; then `DATA` both ways, `END` where a
//! side has finished sending, `RESET` where the stream broke. The gateway may send `DATA` right behind its `OPEN`: an
//! agent that refuses the stream drops it. Invariant: a stream that did not end with `END` in
//! both directions did not end cleanly, whatever else happened.

use crate::tls::MAX_PLAIN;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use wicketgate_model::{Generation, ShareId, plain};

/// The longest payload of a `DATA` frame: the rest of a record.
pub const MAX_DATA: usize = MAX_PLAIN - 1;
/// The longest payload of any other frame.
pub const MAX_MESSAGE: usize = 4 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    Open = 1,
    Opened = 2,
    Refused = 3,
    Data = 4,
    End = 5,
    Reset = 6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame without a type")]
    Empty,
    #[error("unknown frame type {0}")]
    Kind(u8),
    #[error("a frame of {0} bytes is too long")]
    Length(usize),
    #[error("the message of a frame cannot be parsed")]
    Message,
}

impl FrameKind {
    /// A frame's type and payload.
    #[inline]
    pub fn of(frame: &[u8]) -> Result<(Self, &[u8]), FrameError> {
        let (kind, payload) = frame.split_first().ok_or(FrameError::Empty)?;
        let (kind, most) = match kind {
            1 => (Self::Open, MAX_MESSAGE),
            2 => (Self::Opened, 0),
            3 => (Self::Refused, MAX_MESSAGE),
            4 => (Self::Data, MAX_DATA),
            5 => (Self::End, 0),
            6 => (Self::Reset, 0),
            other => return Err(FrameError::Kind(*other)),
        };
        if payload.len() <= most { Ok((kind, payload)) } else { Err(FrameError::Length(payload.len())) }
    }
}

/// The content of an `OPEN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRequest {
    pub share: ShareId,
    /// The newest generation that the agent has acknowledged. It may have a newer one by now.
    pub generation: Generation,
    /// The source address of the remote site's connection.
    pub client: SocketAddr,
}

/// Characters of a refusal's text: more than a sentence with addresses has.
const LONGEST_TEXT: usize = 500;

/// Why an agent did not open a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(from = "RefusalMessage", into = "RefusalMessage")]
#[error("{text}")]
pub struct StreamRefusal {
    pub reason: RefusalReason,
    pub text: String,
}

/// The content of a `REFUSED`.
#[derive(Serialize, Deserialize)]
struct RefusalMessage {
    reason: RefusalReason,
    text: String,
    /// Beside a reason that older gateways know.
    #[serde(default)]
    agent_exhausted: bool,
    /// A reason that older gateways do not know, beside one that they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exact: Option<String>,
}

impl From<RefusalMessage> for StreamRefusal {
    fn from(RefusalMessage { reason, text, agent_exhausted, exact }: RefusalMessage) -> Self {
        // An agent's words reach logs and terminals.
        let text = plain(&text, LONGEST_TEXT);
        if agent_exhausted {
            return Self { reason: RefusalReason::AgentExhausted, text };
        }
        let exact = exact.and_then(|exact| RefusalReason::LATER.into_iter().find(|it| it.as_str() == exact));
        Self { reason: exact.unwrap_or(reason), text }
    }
}

impl From<StreamRefusal> for RefusalMessage {
    fn from(StreamRefusal { reason, text }: StreamRefusal) -> Self {
        let agent_exhausted = reason == RefusalReason::AgentExhausted;
        let exact = RefusalReason::LATER.contains(&reason).then(|| reason.as_str().to_owned());
        let reason = match reason {
            RefusalReason::NoNameServer => RefusalReason::TimedOut,
            RefusalReason::AgentExhausted | RefusalReason::NoRoute | RefusalReason::NotPermitted => {
                RefusalReason::Unreachable
            }
            reason => reason,
        };
        Self { reason, text, agent_exhausted, exact }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    /// The agent has no assignment for the share, or an older one than requested.
    NotAssigned,
    /// Its allow list does not permit the addresses of the target.
    NotAllowed,
    NameNotFound,
    ConnectionRefused,
    TimedOut,
    Unreachable,
    /// No name server answers for the target's name.
    NoNameServer,
    /// The agent's host has no route to the target.
    NoRoute,
    /// The agent's host forbids the connection.
    NotPermitted,
    /// The agent or its host has run out of something: open files, source ports, memory.
    AgentExhausted,
    /// The agent is stopping.
    Draining,
}

impl RefusalReason {
    /// Those that older gateways do not know.
    const LATER: [Self; 3] = [Self::NoNameServer, Self::NoRoute, Self::NotPermitted];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAssigned => "not-assigned",
            Self::NotAllowed => "not-allowed",
            Self::NameNotFound => "name-not-found",
            Self::ConnectionRefused => "connection-refused",
            Self::TimedOut => "timed-out",
            Self::Unreachable => "unreachable",
            Self::NoNameServer => "no-name-server",
            Self::NoRoute => "no-route",
            Self::NotPermitted => "not-permitted",
            Self::AgentExhausted => "agent-exhausted",
            Self::Draining => "draining",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_frame_is_its_type_and_the_rest_or_is_refused(frame in proptest::collection::vec(0u8..9, 0..6000)) {
            if let Ok((kind, payload)) = FrameKind::of(&frame) {
                prop_assert_eq!((kind as u8, payload), (frame[0], &frame[1..]));
                prop_assert!(payload.is_empty() || matches!(kind, FrameKind::Open | FrameKind::Refused | FrameKind::Data));
                prop_assert!(payload.len() <= MAX_MESSAGE || kind == FrameKind::Data);
            }
        }
    }

    #[test]
    fn an_exhausted_agent_is_understood_by_gateways_that_do_not_know_the_reason() {
        let refusal = StreamRefusal { reason: RefusalReason::AgentExhausted, text: "no file".to_owned() };
        let sent = serde_json::to_string(&refusal).unwrap();
        assert_eq!(sent, r#"{"reason":"unreachable","text":"no file","agent_exhausted":true}"#);
        assert_eq!(serde_json::from_str::<StreamRefusal>(&sent).unwrap(), refusal);
        let old = r#"{"reason":"draining","text":""}"#;
        assert_eq!(serde_json::from_str::<StreamRefusal>(old).unwrap().reason, RefusalReason::Draining);
    }

    #[test]
    fn a_later_reason_is_understood_by_gateways_that_do_not_know_it() {
        for (reason, old) in [("no-name-server", "timed-out"), ("no-route", "unreachable")] {
            let sent =
                format!(r#"{{"reason":"{old}","text":"t","agent_exhausted":false,"exact":"{reason}"}}"#);
            let refusal: StreamRefusal = serde_json::from_str(&sent).unwrap();
            assert_eq!(refusal.reason.as_str(), reason);
            assert_eq!(serde_json::to_string(&refusal).unwrap(), sent);
        }
        let drives = "{\"reason\":\"draining\",\"text\":\"a\\u001b[2J\\u202eb\"}";
        assert_eq!(serde_json::from_str::<StreamRefusal>(drives).unwrap().text, "a[2Jb");
        let newer = r#"{"reason":"timed-out","text":"","exact":"some-day"}"#;
        assert_eq!(serde_json::from_str::<StreamRefusal>(newer).unwrap().reason, RefusalReason::TimedOut);
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused() {
        assert_eq!(FrameKind::of(&[]), Err(FrameError::Empty));
        assert_eq!(FrameKind::of(&[9]), Err(FrameError::Kind(9)));
        assert_eq!(FrameKind::of(&[5, 0]), Err(FrameError::Length(1)));
        assert_eq!(FrameKind::of(&[1; MAX_MESSAGE + 2]), Err(FrameError::Length(MAX_MESSAGE + 1)));
        assert!(FrameKind::of(&[4; MAX_DATA + 1]).is_ok());
    }
}
