//! An agent with a certificate of the authority that the server does not know.

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{AgentId, EnvironmentId, FrontdoorId};

/// As its certificate has it, which it has proved to hold the key of. It has enrolled after the backup from which the database
/// was restored; or the authority's key was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnknownAgent {
    pub agent: AgentId,
    pub environment: EnvironmentId,
    pub frontdoor: FrontdoorId,
    /// SHA-256 of its public key, an uncompressed point (SEC 1 §2.3.3).
    pub key_sha256: [u8; 32],
    /// As it reports it.
    pub name: String,
    /// Where it has connected from last.
    pub address: IpAddr,
    pub first_seen_at: Timestamp,
    pub last_seen_at: Timestamp,
}
