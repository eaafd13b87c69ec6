//! The gateways that the agents of an environment dial, signed by the server: a gateway can forward the list and cannot change it.

use crate::{EnvironmentId, Era, GatewayId, base64_text};
use serde::{Deserialize, Serialize};

/// The gateways of one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayList {
    /// Agents of any other environment refuse it.
    pub environment: EnvironmentId,
    /// An agent never goes back to an older era.
    #[serde(default, skip_serializing_if = "Era::is_first")]
    pub era: Era,
    /// The database's revision that the list is of: within an era, an agent never goes back to an older one.
    pub version: u64,
    pub gateways: Vec<DialledGateway>,
}

/// A gateway of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DialledGateway {
    /// Its certificate has to name it: that it is a gateway of the authority is not enough.
    pub id: GatewayId,
    /// What agents dial, `https://HOST:PORT`.
    pub url: String,
}

impl GatewayList {
    /// Gateways of a list, at most: each is a connection and some carriers of each agent.
    pub const MOST: usize = 32;

    /// What decides which of two lists is the newer one.
    pub fn age(&self) -> (Era, u64) {
        (self.era, self.version)
    }
}

/// A [`GatewayList`] as JSON text, and the server's signature over [`SignedGatewayList::signed_bytes`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignedGatewayList {
    pub body: String,
    /// ECDSA P-256 with SHA-256, ASN.1 DER, by the key of the server's CA.
    #[serde(with = "base64_text")]
    pub signature: Vec<u8>,
}

impl SignedGatewayList {
    /// What is signed. The prefix keeps the signature from being one over anything else that the CA signs.
    pub fn signed_bytes(body: &str) -> Vec<u8> {
        [b"wicketgate gateways v1\n", body.as_bytes()].concat()
    }
}
