//! TLS 1.3 on the agent port, between agents and gateways, and on the link port, between gateways and servers.
//!
//! The protocol name (ALPN, RFC 7301) states the purpose of a connection, and each port accepts its own. Invariant: both ends have a
//! certificate of the same CA; a control connection or a carrier has an agent on one end and a gateway on the other, a link a gateway
//! and a server. Only the client of an enrolment or of a join has no certificate. Carriers have a record layer of their own, which
//! encrypts and decrypts in place; all other connections use tokio-rustls.

mod agent;
mod agent_verifier;
mod certificate;
pub(crate) mod diagnosis;
mod dial;
mod error;
mod gateway;
mod handshake;
mod incoming;
mod link_dial;
mod link_port;
mod link_stream;
mod provider;
mod purpose;
mod record;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod verifier;

pub use agent::{AgentTls, connect_enrol};
pub use agent_verifier::ExpiredAgent;
pub use certificate::LiveCertificate;
pub use diagnosis::Diagnosis;
pub use error::TlsError;
pub use gateway::{Accepted, GatewayIdentity};
pub(crate) use incoming::{Incoming, Next};
pub use link_dial::{LinkTls, PeerTls, connect_join};
pub use link_port::{LinkAccepted, ServerIdentity};
pub use link_stream::LinkStream;
#[cfg(any(test, fuzzing))]
pub use record::fuzz::tls_record;
pub(crate) use record::{HEADER as RECORD_HEADER, MARGIN, MAX_PLAIN, RecordSealer, SLOT, TrafficKeys};
pub(crate) use stream::RecordStream;
