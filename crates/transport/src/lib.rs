//! Connections between agents and gateways: authentication, encryption, control messages, carriers and the relay. And those between
//! gateways and servers: authentication and encryption.
//!
//! Invariant: every connection is TLS 1.3 (RFC 8446) with both ends authenticated by the server's certificate
//! authority, except the one on which an agent or a gateway requests its first certificate.

pub mod abort;
mod buffer;
pub mod carrier;
pub mod code;
pub mod control;
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
