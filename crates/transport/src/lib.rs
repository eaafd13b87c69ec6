//! Connections between an agent and a gateway: who may speak to whom, and in which frames.
//!
//! Invariant: a connection that leaves this crate is TLS 1.3 (RFC 8446) with both ends authenticated by the server's
//! certificate authority, except the one on which an agent asks for its first certificate.

pub mod abort;
mod buffer;
pub mod carrier;
pub mod control;
pub mod enrolment_code;
pub mod frame;
pub mod identity;
pub mod keepalive;
pub mod key;
pub mod relay;
pub mod reset_on_drop;
pub mod tls;
pub mod trust;
