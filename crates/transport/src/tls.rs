//! TLS 1.3 on the agent port: the gateway's end and the agent's end.
//!
//! The protocol name (ALPN, RFC 7301) states the purpose of a connection. Invariant: a control connection or a carrier
//! has an agent of this CA on one end and a gateway of this CA on the other; only the client of an enrolment has no
//! certificate. Control connections and enrolments use tokio-rustls. Carriers have a record layer of their own, which
//! encrypts and decrypts in place.

mod agent;
mod agent_verifier;
mod certificate;
pub(crate) mod diagnosis;
mod error;
mod gateway;
mod handshake;
mod incoming;
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
#[cfg(any(test, fuzzing))]
pub use record::fuzz::tls_record;
pub(crate) use record::{HEADER as RECORD_HEADER, MARGIN, MAX_PLAIN, RecordSealer, SLOT, TrafficKeys};
pub(crate) use stream::RecordStream;
