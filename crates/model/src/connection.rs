//! A tunnel's live connection. It is separate from the provisioning status: a peer that is down is not an error of the
//! tunnel.

use std::{fmt, net::Ipv4Addr};

use ipnet::Ipv4Net;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{PeerCidr, declare::serde_as_text};

crate::text_enum!(
    /// Whether a tunnel's peer is connected.
    ConnectionState {
        /// A CHILD SA is installed: traffic can flow.
        Up = "UP",
        /// An IKE SA is being negotiated.
        Connecting = "CONNECTING",
        /// Both ends are authenticated, and no CHILD SA is installed: nothing passes.
        Idle = "IDLE",
        Down = "DOWN",
    }
);
/// What the gateway's IKE daemon reports about a tunnel's peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    pub state: ConnectionState,
    pub since: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithms: Option<Algorithms>,
    /// The other end, once an IKE SA is being negotiated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<Nat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ike_sa: Option<SaTimes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_sa: Option<SaTimes>,
    /// One for each pair of selectors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub child_sas: Vec<ChildSa>,
    /// Inner bytes from and to the peer over all CHILD SAs, since this gateway started or made the tunnel, whichever is
    /// later.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Since then.
    #[serde(default)]
    pub rekeys: Rekeys,
    /// Why the peer could not connect or rekey at its last attempt; cleared on success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<ConnectionError>,
    /// What casts doubt on a connection that is up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<ConnectionWarning>,
}

impl Connection {
    pub fn down(since: Timestamp) -> Self {
        Self {
            state: ConnectionState::Down,
            since,
            algorithms: None,
            peer: None,
            nat: None,
            ike_sa: None,
            child_sa: None,
            child_sas: Vec::new(),
            bytes_in: 0,
            bytes_out: 0,
            rekeys: Rekeys::default(),
            last_error: None,
            warnings: Vec::new(),
        }
    }

    /// Whether traffic passes, as far as is known.
    pub fn passes(&self) -> bool {
        self.state == ConnectionState::Up && self.silence().is_none()
    }

    /// Since when [`Self::passes`] has had its value.
    pub fn passes_since(&self) -> Timestamp {
        let silence = self.silence().filter(|_| self.state == ConnectionState::Up);
        silence.map_or(self.since, |warning| warning.since)
    }

    /// The warning that nothing passes though the connection is up.
    pub fn silence(&self) -> Option<&ConnectionWarning> {
        self.warnings.iter().find(|warning| warning.reason == ConnectionDoubt::PeerSilent)
    }
}

/// How often SAs were rekeyed, by either end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rekeys {
    pub ike: u64,
    pub child: u64,
}

/// The peer as its packets show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The source of its packets: behind a NAT, the NAT's address.
    pub address: Ipv4Addr,
    pub port: u16,
    /// The authenticated IKE identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Which side is behind a NAT, as IKE detects it (RFC 7296 §2.23). The gateway's side always is, if each tunnel's
/// daemon has an address of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nat {
    pub gateway: bool,
    pub peer: bool,
}

/// The lifetime of an SA, as points in time, so that values stay equal while nothing happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SaTimes {
    pub established_at: Timestamp,
    /// When the gateway rekeys it, unless the peer does before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rekey_at: Option<Timestamp>,
}

/// A CHILD SA across its rekeys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChildSa {
    pub selectors: TrafficSelectors,
    /// Of the newest SA, as in [`Algorithms`].
    pub algorithms: String,
    /// When the first SA was installed.
    pub since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rekey_at: Option<Timestamp>,
    pub rekeys: u32,
    /// Inner bytes from and to the peer, since then.
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// The agreed networks at both ends (RFC 7296 §2.9), as the gateway's IPsec engine writes them: `10.0.0.0/16`,
/// `10.0.0.0/16[tcp/443]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TrafficSelectors {
    pub gateway: Vec<String>,
    pub peer: Vec<String>,
}

impl TrafficSelectors {
    /// Whether the peer's side is less than `network`, or not all of its traffic.
    pub fn is_narrower(&self, network: PeerCidr) -> bool {
        let is_all = |word: &String| word.parse::<Ipv4Net>().is_ok_and(|net| net.contains(&network.get()));
        !self.peer.iter().any(is_all)
    }
}

/// The negotiated algorithms, as the gateway's IPsec engine names them (`AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Algorithms {
    pub ike: String,
    pub esp: String,
}

crate::text_enum!(
    /// Why the peer cannot connect. A closed set: callers act on it.
    ConnectionFault {
        /// The peer authenticated with none of the valid pre-shared keys.
        PreSharedKeysDiffer = "PreSharedKeysDiffer",
        /// The peer's IKE identity is not `peerId`.
        PeerIdentityDiffers = "PeerIdentityDiffers",
        /// The peer asks for an IKE identity that is not the gateway's.
        GatewayIdentityDiffers = "GatewayIdentityDiffers",
        /// None of the peer's proposals for the IKE SA is one of `ikeProposals`.
        NoCommonIkeProposal = "NoCommonIkeProposal",
        /// None of the peer's proposals for the CHILD SA is one of `espProposals`.
        NoCommonEspProposal = "NoCommonEspProposal",
        /// The peer's traffic selectors have nothing in common with the tunnel's.
        TrafficSelectorsDiffer = "TrafficSelectorsDiffer",
        /// The peer rejected the gateway's authentication: it has another key, or expects another identity.
        PeerRefusedGateway = "PeerRefusedGateway",
        /// The peer authenticates with EAP, a certificate or a public key.
        AuthenticationMethodDiffers = "AuthenticationMethodDiffers",
        /// The peer asks for an address of the gateway's choice (RFC 7296 §2.19).
        VirtualIpRequested = "VirtualIpRequested",
        /// The peer deleted the CHILD SA as soon as it was established.
        ChildSaWithdrawn = "ChildSaWithdrawn",
        /// The gateway's own kernel did not take the CHILD SA.
        ChildSaNotInstalled = "ChildSaNotInstalled",
        /// The peer speaks IKEv1.
        IkeVersionDiffers = "IkeVersionDiffers",
        /// The gateway's own IKE daemon has ended or hangs, or its host drops packets; it is not the peer's fault.
        GatewayFailed = "GatewayFailed",
        /// Two devices connect with the tunnel's identity, and replace each other's connection.
        PeerDuplicated = "PeerDuplicated",
        /// The peer sends ESP to an SA that does not exist, beside one that does.
        ChildSaUnknown = "ChildSaUnknown",
        /// The device with the tunnel's keys sends from another address than `peerPublicIp`.
        PeerAddressDiffers = "PeerAddressDiffers",
        /// IKE passes on UDP 500, and not on UDP 4500.
        NatTraversalBlocked = "NatTraversalBlocked",
        /// The peer's messages arrive, and it does not receive the gateway's answers.
        AnswersLost = "AnswersLost",
        /// The peer does not answer.
        PeerDoesNotAnswer = "PeerDoesNotAnswer",
        /// Any other failure; the cause has its name in IKE.
        NegotiationFailed = "NegotiationFailed",
    }
);
crate::text_enum!(
    /// What casts doubt on a connection that is up. A closed set: callers act on it.
    ConnectionDoubt {
        /// The peer has not answered for some seconds, and is asked again.
        PeerSuspected = "PeerSuspected",
        /// The peer has not answered several times in a row: nothing passes now.
        PeerSilent = "PeerSilent",
        /// No packet has come through the CHILD SAs since they were installed. The site may be idle.
        NoTrafficReceived = "NoTrafficReceived",
        /// Hosts of the site use ports of the load balancer that no share has.
        PortWithoutShare = "PortWithoutShare",
        /// Packets come through the CHILD SAs and are dropped, since they are outside of the traffic selectors.
        PacketsOutsideSelectors = "PacketsOutsideSelectors",
        /// Large packets are lost on the path to the site, and no ICMP error says so.
        LargePacketsLost = "LargePacketsLost",
    }
);
crate::text_enum!(
    /// The protocol of a packet inside a tunnel.
    InnerProtocol {
        Tcp = "tcp",
        Udp = "udp",
    }
);
serde_as_text!(ConnectionState, ConnectionFault, ConnectionDoubt, InnerProtocol);

/// A doubt about a connection that is up. It ends when the reason for it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionWarning {
    pub reason: ConnectionDoubt,
    /// What was observed and what to do, for a reader; no code parses it.
    pub message: String,
    pub since: Timestamp,
    /// Of [`ConnectionDoubt::PortWithoutShare`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<UnservedPort>,
}

impl ConnectionWarning {
    pub fn new(reason: ConnectionDoubt, message: impl Into<String>, since: Timestamp) -> Self {
        Self { reason, message: message.into(), since, ports: Vec::new() }
    }
}

/// A port of the load balancer that no share has, and that hosts of the site use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnservedPort {
    pub protocol: InnerProtocol,
    pub port: u16,
    /// Connections that were refused, or packets of UDP.
    pub attempts: u64,
    /// When the last one was counted.
    pub last_at: Timestamp,
    /// Addresses of hosts that use it, some of them if there are many.
    pub sources: Vec<Ipv4Addr>,
}

/// Why the peer cannot connect. Its text (`Display`) is `cause: cure`, for a reader; no code parses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionError {
    pub reason: ConnectionFault,
    /// What was observed. A connection stored by an older version has the whole text here, as `message`.
    #[serde(alias = "message")]
    pub cause: String,
    /// What to do about it; empty if unknown.
    #[serde(default)]
    pub cure: String,
    /// The first of the consecutive attempts that failed in this way.
    pub since: Timestamp,
}

impl ConnectionError {
    /// Whether both report the same failure, whenever it began.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.reason, &self.cause, &self.cure) == (other.reason, &other.cause, &other.cure)
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)?;
        if self.cure.is_empty() { Ok(()) } else { write!(f, ": {}", self.cure) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_the_format_of_an_older_version_is_read() {
        let old = r#"{"reason": "IkeVersionDiffers", "message": "why: what to do", "since": "2026-01-01T00:00:00Z"}"#;
        let error: ConnectionError = serde_json::from_str(old).unwrap();
        assert_eq!(error.to_string(), "why: what to do");
        let warning = r#"{"reason": "PeerSilent", "message": "why", "since": "2026-01-01T00:00:00Z"}"#;
        let warning: ConnectionWarning = serde_json::from_str(warning).unwrap();
        assert_eq!(warning, ConnectionWarning::new(ConnectionDoubt::PeerSilent, "why", error.since));
        let new = ConnectionError { cause: "why".to_owned(), cure: "what to do".to_owned(), ..error };
        assert_eq!(new.to_string(), "why: what to do");
    }
}
