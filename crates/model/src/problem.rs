//! Problems of tunnels and shares: a reason that programs act on, and a sentence for people.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{declare::serde_as_text, plain};

crate::text_enum!(
    /// Why a tunnel or share does not work. A closed list: programs act on it.
    Reason {
        /// The gateway has not reported yet.
        Pending = "Pending",
        /// No gateway of the location is linked to the server.
        GatewayOffline = "GatewayOffline",
        /// No server has a link to the row's gateway, which goes on with what it has: the status is the last that was reported.
        GatewayUnreachable = "GatewayUnreachable",
        /// The gateway has as many tunnels, or open ports of shares, as it can hold.
        GatewayFull = "GatewayFull",
        /// The gateway cannot bring up the tunnel's namespace, addresses or IKE daemon.
        TunnelFailed = "TunnelFailed",
        /// The share's tunnel is not ready at the gateway.
        TunnelNotReady = "TunnelNotReady",
        /// Another program holds the ingress port.
        PortInUse = "PortInUse",
        /// The listener cannot be bound for another reason.
        ListenerFailed = "ListenerFailed",
        /// No agent of the environment is connected.
        AgentOffline = "AgentOffline",
        /// The only agents that serve the share are connected and do not answer.
        AgentSilent = "AgentSilent",
        /// No connected agent has acknowledged the share yet.
        AgentPending = "AgentPending",
        /// The agent's own allow list, or its check of the assignment, refuses the share.
        AgentRefused = "AgentRefused",
        /// The agent or its host has run out of open files, source ports or memory.
        AgentExhausted = "AgentExhausted",
        /// Two running agents have the same identity; the gateway serves the one that connected first.
        AgentDuplicated = "AgentDuplicated",
        /// The agent cannot connect to the target.
        TargetUnreachable = "TargetUnreachable",
        /// One of the gateways that are to serve it does not; another one does.
        RedundancyLost = "RedundancyLost",
        /// The tunnel's peer is not connected, so that nothing from the site arrives at the share.
        PeerDown = "PeerDown",
        /// Most of the last connections failed behind the gateway, in the same way.
        ConnectionsFail = "ConnectionsFail",
        /// The target has sent no byte on any of the last connections on which clients sent bytes.
        ConnectionsUnanswered = "ConnectionsUnanswered",
        /// The gateway refused most of the last connections: by source, or by a limit.
        ConnectionsRefused = "ConnectionsRefused",
        /// The target ends connections at once.
        TargetClosed = "TargetClosed",
        /// The share, its tunnel or the gateway has its maximum of connections.
        ConnectionLimit = "ConnectionLimit",
        /// The tunnel's peerPublicIp has become that of another customer's tunnel.
        PeerAddressTaken = "PeerAddressTaken",
        /// It, or the share's tunnel, is disabled on request: nothing of it is served.
        Disabled = "Disabled",
        /// The share's `expiresAt` has passed.
        Expired = "Expired",
        /// It was deleted, and no gateway serves any part of it.
        Deleted = "Deleted",
    }
);
serde_as_text!(Reason);

impl Reason {
    /// Whether a row that has this problem serves other connections, or all of them, or is none at all: no answer may be what clients
    /// expect.
    pub fn is_warning(self) -> bool {
        matches!(
            self,
            Self::AgentDuplicated
                | Self::ConnectionsRefused
                | Self::ConnectionsUnanswered
                | Self::RedundancyLost
        )
    }
}

/// A reason, and the sentence for the person who reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub reason: Reason,
    #[serde(deserialize_with = "sentence")]
    pub message: String,
}

impl Problem {
    /// Characters of the message. It may contain words of an agent, a daemon or a site's device.
    pub const LONGEST: usize = 2_000;

    /// Whether the cause passes by itself, so that the status does not change for it.
    pub fn is_pending(&self) -> bool {
        self.reason == Reason::Pending
    }

    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: plain(&message.into(), Self::LONGEST) }
    }

    /// Of a tunnel, and of its shares. It tells nothing of the tunnel that has the address.
    pub fn peer_address_taken() -> Self {
        Self::new(
            Reason::PeerAddressTaken,
            "another customer's tunnel has the tunnel's peerPublicIp now: no connection from that address had proved it to be \
             this site's, or the operator has decided so; set the site's address, or ask the operator",
        )
    }

    /// What a gateway reports of a tunnel or a share that is disabled, once nothing of it is served.
    pub fn disabled() -> Self {
        Self::new(
            Reason::Disabled,
            "it is disabled: set enabled to true to serve it again, or ipsecSharesEnabled of its Frontdoor if that is false",
        )
    }
}

/// A gateway's sentence reaches the terminals of the server's users.
fn sentence<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    String::deserialize(d).map(|text| plain(&text, Problem::LONGEST))
}

/// A problem, and since when its reason has been the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    pub problem: Problem,
    pub since: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_controls_no_terminal_wherever_its_words_come_from() {
        let words = format!("no \u{1b}[2Jroute\u{202e}\u{9b}1m{}", "x".repeat(5_000));
        let made = Problem::new(Reason::TargetUnreachable, words.clone());
        assert!(
            made.message.starts_with("no [2Jroute1mx") && made.message.len() == Problem::LONGEST,
            "{made:?}"
        );
        let read = serde_json::json!({"reason": "TargetUnreachable", "message": words});
        assert_eq!(serde_json::from_value::<Problem>(read).unwrap(), made);
    }
}
