//! An address that sends IKE to a gateway and is no tunnel's.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The packets from one address to one port of the gateway. Their source may be forged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnknownPeer {
    pub address: Ipv4Addr,
    /// Of the gateway: 500 or 4500.
    pub port: u16,
    pub packets: u64,
    pub first_seen_at: Timestamp,
    pub last_seen_at: Timestamp,
}
