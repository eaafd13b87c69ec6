//! A tunnel's live connection, apart from its provisioning status: a peer that is down is no error of the tunnel.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ConnectionState {
    /// A CHILD SA is installed: traffic can flow.
    Up,
    /// An IKE SA is being made, or is there without a CHILD SA.
    Connecting,
    #[default]
    Down,
}

impl ConnectionState {
    pub const ALL: [Self; 3] = [Self::Up, Self::Connecting, Self::Down];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "UP",
            Self::Connecting => "CONNECTING",
            Self::Down => "DOWN",
        }
    }
}

/// What the gateway's IKE daemon reports about a tunnel's peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    pub state: ConnectionState,
    pub since: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithms: Option<Algorithms>,
    /// Inner bytes from and to the peer since this gateway started, or made the tunnel if that was later, over all its
    /// CHILD SAs.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// The last failure, as IKE names it (`AUTHENTICATION_FAILED`, `NO_PROPOSAL_CHOSEN`, `TS_UNACCEPTABLE`);
    /// cleared when the connection comes up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl Connection {
    pub fn down(since: Timestamp) -> Self {
        Self {
            state: ConnectionState::Down,
            since,
            algorithms: None,
            bytes_in: 0,
            bytes_out: 0,
            last_error: None,
        }
    }
}

/// The negotiated proposals, in strongSwan's notation (`AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Algorithms {
    pub ike: String,
    pub esp: String,
}
