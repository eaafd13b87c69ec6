//! The ways in which a stream breaks.

use crate::carrier::CarrierError;
use std::{fmt, io, time::Duration};

/// Why a stream did not end cleanly. Its carrier was closed and its TCP connection reset.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the connection broke")]
    Tcp(#[source] io::Error),
    #[error("the peer reset the stream")]
    Reset,
    #[error(transparent)]
    Carrier(CarrierError),
    #[error("the stream was idle for {}s", .0.as_secs())]
    Idle(Duration),
    #[error("{side} has not acknowledged data for {}s", super::UNANSWERED.as_secs(), side = .0)]
    Unanswered(Side),
    #[error("the stream was cut after what had arrived was delivered")]
    Finished,
    #[error("the stream was aborted")]
    Aborted,
}

/// One of the two connections of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Connection,
    Carrier,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "the connection's peer",
            Self::Carrier => "the other end of the carrier",
        })
    }
}

impl Broken {
    /// The carrier's connection has failed.
    pub(super) fn carrier(error: io::Error) -> Self {
        Self::Carrier(CarrierError::Io(error))
    }
}
