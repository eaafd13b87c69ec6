//! The ways in which a stream breaks.

use crate::carrier::CarrierError;
use std::{io, time::Duration};

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
    #[error("the stream was aborted")]
    Aborted,
}

impl Broken {
    /// The carrier's connection has failed.
    pub(super) fn carrier(error: io::Error) -> Self {
        Self::Carrier(CarrierError::Io(error))
    }
}
