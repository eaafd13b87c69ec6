//! The links between agent, gateway and server: who may speak to whom, and in which frames.
//!
//! TLS is only here. A connection that leaves this crate is TLS 1.3 with both ends proved by the server's
//! authority, save the one on which an agent asks for its first certificate, and the API's, whose certificate is the
//! operator's.

mod buffer;
pub mod ca;
pub mod carrier;
pub mod control;
pub mod cut;
pub mod enrolment_code;
pub mod frame;
pub mod identity;
pub mod keepalive;
pub mod key;
pub mod link;
pub mod private_file;
pub mod relay;
pub mod tls;
pub mod trust;
pub mod unended;
