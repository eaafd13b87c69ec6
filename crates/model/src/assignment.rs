//! A share as an agent serves it, signed by the server: a gateway can forward it and cannot change it.

use crate::{EnvironmentId, Era, Generation, HealthCheck, ShareId, Target};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How an agent begins to say that it has seen newer assignments: the database was restored, by hand or to another server.
pub const OLDER_ASSIGNMENT: &str = "the assignment is older than";
/// How an agent begins to say that an assignment has ended by its clock.
pub const EXPIRED_ASSIGNMENT: &str = "the assignment has expired";

/// One share, as the agents of one environment serve it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// Agents of any other environment refuse it.
    pub environment: EnvironmentId,
    pub share: ShareId,
    /// An agent never goes back to an older era either. Left out if it is the first.
    #[serde(default, skip_serializing_if = "Era::is_first")]
    pub era: Era,
    /// An agent never goes back to an older generation of a share: a replayed assignment changes nothing.
    pub generation: Generation,
    pub target: Target,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
    /// The share's name, for the agent's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When agents stop to serve it, unless they have got the same with a later end: a gateway that keeps a withdrawal to
    /// itself keeps the share alive until then. `None`: never, as earlier versions sign them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// An [`Assignment`] as JSON text, and the server's signature over [`SignedAssignment::signed_bytes`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignedAssignment {
    pub body: String,
    /// ECDSA P-256 with SHA-256, ASN.1 DER, by the key of the server's CA. Empty: the server has not signed it yet.
    pub signature: Vec<u8>,
}

impl SignedAssignment {
    /// One that a server signs before it sends it.
    pub fn unsigned(body: String) -> Self {
        Self { body, signature: Vec::new() }
    }

    pub fn is_signed(&self) -> bool {
        !self.signature.is_empty()
    }

    /// What is signed. The prefix keeps the signature from being one over anything else that the CA signs.
    pub fn signed_bytes(body: &str) -> Vec<u8> {
        [b"wicketgate assignment v1\n", body.as_bytes()].concat()
    }
}
