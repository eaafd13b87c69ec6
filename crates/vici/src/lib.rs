//! A client of VICI, the control protocol of strongSwan: it configures a charon and receives its events.
//!
//! A [`Client`] sends requests over one connection, [`Events`] receives events over another, so that a burst of log
//! lines never delays an answer. Every wait for an answer has a bound, and the end of a connection is an
//! error, so a dead charon is noticed.

mod client;
mod events;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod message;
mod packet;

pub use client::Client;
pub use events::Events;
pub use message::{Message, Value};

/// Why a request to charon failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("can't connect to the IKE daemon")]
    Connect(#[source] std::io::Error),
    /// The daemon ended or closed the connection. Also every request after a timeout.
    #[error("the IKE daemon closed the connection")]
    Closed,
    #[error("the connection to the IKE daemon broke")]
    Io(#[source] std::io::Error),
    /// The connection cannot be used any more: the late answer would be taken for the next request's.
    #[error("the IKE daemon did not answer {0} in time")]
    Timeout(String),
    /// `success = no`. The text is charon's `errmsg`.
    #[error("{command} failed: {message}")]
    Failed { command: String, message: String },
    #[error("the IKE daemon does not know {0}")]
    Unknown(String),
    /// The daemon sent something other than VICI.
    #[error("the IKE daemon sent a malformed message: {0}")]
    Malformed(&'static str),
    /// The message does not fit VICI's length fields.
    #[error("the message is too large for the IKE daemon")]
    TooLarge,
}
