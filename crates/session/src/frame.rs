//! A carrier's frames: a type and a length, nothing else.
//!
//! ```text
//! type u8 | length u32, big endian | length bytes
//! ```
//!
//! `OPEN` goes from the gateway to the agent, `OPENED` or `REFUSED` back; then `DATA` both ways, `END` where a
//! side has finished sending, `RESET` where the stream broke. Invariant: a stream that did not end with `END` in
//! both directions did not end cleanly, whatever else happened.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use wicketgate_model::{Generation, ShareId};

/// Bytes before a frame's payload.
pub const HEADER: usize = 5;
/// The most payload that one `DATA` frame may carry: what a side reads at once. A longer one is an error.
pub const MAX_DATA: usize = 64 * 1024;
/// The most payload of any other frame.
pub const MAX_MESSAGE: usize = 4 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Open = 1,
    Opened = 2,
    Refused = 3,
    Data = 4,
    End = 5,
    Reset = 6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub length: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("unknown frame type {0}")]
    Kind(u8),
    #[error("a frame of {0} bytes is too long")]
    Length(u32),
    #[error("a frame's message can't be read")]
    Message,
}

impl Header {
    pub fn encode(self) -> [u8; HEADER] {
        let mut bytes = [self.kind as u8; HEADER];
        bytes[1..].copy_from_slice(&u32::try_from(self.length).unwrap_or(u32::MAX).to_be_bytes());
        bytes
    }

    #[inline]
    pub fn decode(bytes: [u8; HEADER]) -> Result<Self, FrameError> {
        let [kind, length @ ..] = bytes;
        let (kind, most) = match kind {
            1 => (Kind::Open, MAX_MESSAGE),
            2 => (Kind::Opened, 0),
            3 => (Kind::Refused, MAX_MESSAGE),
            4 => (Kind::Data, MAX_DATA),
            5 => (Kind::End, 0),
            6 => (Kind::Reset, 0),
            other => return Err(FrameError::Kind(other)),
        };
        let length = u32::from_be_bytes(length);
        match usize::try_from(length) {
            Ok(n) if n <= most => Ok(Self { kind, length: n }),
            _ => Err(FrameError::Length(length)),
        }
    }
}

/// What an `OPEN` asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    pub share: ShareId,
    /// The newest generation that the agent has acknowledged; it may have a newer one by now.
    pub generation: Generation,
    /// Where the remote site's connection comes from.
    pub client: SocketAddr,
}

/// Why an agent does not open a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    pub reason: RefusalReason,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    /// The agent has no assignment for the share, or an older one than asked for.
    NotAssigned,
    /// Its allow list has no place for where the target's name leads.
    NotAllowed,
    NameNotFound,
    ConnectionRefused,
    TimedOut,
    Unreachable,
    /// The agent is about to end.
    Draining,
}

impl RefusalReason {
    /// Whether it speaks of the target, and not of the agent.
    pub fn is_of_the_target(self) -> bool {
        matches!(self, Self::NameNotFound | Self::ConnectionRefused | Self::TimedOut | Self::Unreachable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_reads_back_or_is_refused(bytes: [u8; HEADER]) {
            if let Ok(header) = Header::decode(bytes) {
                prop_assert_eq!(header.encode(), bytes);
                prop_assert!(header.length <= MAX_DATA);
            }
        }

        #[test]
        fn data_of_every_length_reads_back(length in 0..=MAX_DATA) {
            let header = Header { kind: Kind::Data, length };
            prop_assert_eq!(Header::decode(header.encode()), Ok(header));
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        assert_eq!(Header::decode([4, 0, 1, 0, 1]), Err(FrameError::Length(65_537)));
        assert_eq!(Header::decode([5, 0, 0, 0, 1]), Err(FrameError::Length(1)));
        assert_eq!(Header::decode([9, 0, 0, 0, 0]), Err(FrameError::Kind(9)));
    }
}
