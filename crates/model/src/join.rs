//! The join of a gateway: its request, and what the server grants or why it refuses.

use crate::{GatewayId, JoinTokenId, LocationId, base64_text};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The request of a gateway that joins.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinRequest {
    pub token: JoinTokenId,
    /// The token's secret. Not shown by `Debug`.
    #[serde(with = "base64_text")]
    pub secret: Vec<u8>,
    /// The gateway's public key: an uncompressed P-256 point (SEC 1 §2.3.3), 65 bytes.
    #[serde(with = "base64_text")]
    pub public_key: Vec<u8>,
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinRequest({}, …)", self.token)
    }
}

/// The identity of a gateway that has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinGrant {
    pub gateway: GatewayId,
    /// Where it is, as its token says.
    pub location: LocationId,
    /// DER.
    #[serde(with = "base64_text")]
    pub certificate: Vec<u8>,
    /// DER.
    #[serde(with = "base64_text")]
    pub ca_certificate: Vec<u8>,
    /// The addresses at which servers accept links now. The first message of each link has those of then.
    pub servers: Vec<String>,
}

/// Why a gateway gets no certificate. The text is for its operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum JoinRefusal {
    #[error("the join token is wrong or unknown to the server: copy all of it, or create a new one")]
    WrongToken,
    #[error("the join token has expired: create a new one")]
    Expired,
    #[error("the join token was used already: each token joins one gateway, create a new one")]
    Used,
    #[error("the join token was tried too often with a wrong secret: create a new one")]
    TooManyTries,
    #[error(
        "the gateway of the join token was deleted, or another machine has replaced it: create a new token"
    )]
    Removed,
}
