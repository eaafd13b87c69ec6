//! A client of strongSwan's control protocol, VICI: how the gateway configures a charon and learns what it does.
//!
//! A [`Client`] sends requests over one connection, [`Events`] receives events over another, so that a burst of
//! log lines never stands before an answer. Every wait has a bound, and the end of a connection is an error to
//! everybody who waits on it: a charon that died is noticed, never waited for.

mod client;
mod events;
mod message;
mod packet;

pub use client::Client;
pub use events::Events;
pub use message::{Message, Value};

/// Why charon didn't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("can't connect to the IKE daemon")]
    Connect(#[source] std::io::Error),
    /// The daemon ended, or closed the connection; also what is left of a connection after a timeout.
    #[error("the IKE daemon closed the connection")]
    Closed,
    #[error("the connection to the IKE daemon broke")]
    Io(#[source] std::io::Error),
    /// The connection can't be used any more: the late answer would be taken for that of the next request.
    #[error("the IKE daemon did not answer {0} in time")]
    Timeout(String),
    /// `success = no`. The text is charon's `errmsg`.
    #[error("{command} failed: {message}")]
    Failed { command: String, message: String },
    #[error("the IKE daemon does not know {0}")]
    Unknown(String),
    /// What the daemon sent is not VICI.
    #[error("the IKE daemon sent a malformed message: {0}")]
    Malformed(&'static str),
    /// What was to be sent does not fit VICI's length fields.
    #[error("the message is too large for the IKE daemon")]
    TooLarge,
}
