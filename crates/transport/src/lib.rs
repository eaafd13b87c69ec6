//! Connections between agents and gateways: authentication, encryption, control messages, carriers and the relay.
//!
//! Invariant: every connection is TLS 1.3 (RFC 8446) with both ends authenticated by the server's certificate
//! authority, except the one on which an agent requests its first certificate.

pub mod abort;
mod buffer;
pub mod carrier;
pub mod control;
pub mod enrolment_code;
pub mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod identity;
pub mod keepalive;
pub mod key;
pub mod relay;
pub mod reset_on_drop;
pub mod tls;
pub mod trust;
