//! The problems of tunnels and shares in words for the engineer of the remote site, who can mend some of them, and tell the
//! provider of others.

use serde::Serialize;
use wicketgate_model::Reason;

/// A message, and what its reader does about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::api) struct Words {
    pub(in crate::api) message: String,
    pub(in crate::api) advice: String,
}

impl Words {
    pub(in crate::api) fn new(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { message: message.into(), advice: advice.into() }
    }
}

const WAIT: &str = "Look again in a moment; if it stays so, tell your provider";
const TELL: &str = "Change nothing at your device: tell your provider";

/// Without the problem's own message, which may name what is behind the gateway.
pub(in crate::api) fn of(reason: Reason) -> Words {
    let (message, advice) = match reason {
        Reason::Pending => ("the provider's gateway is taking over the newest change", WAIT),
        Reason::GatewayOffline => ("the provider's gateway is not available", TELL),
        Reason::GatewayUnreachable => {
            ("the provider does not hear of its gateway, which goes on with what it has", WAIT)
        }
        Reason::GatewayFull => ("the provider's gateway has no room for the tunnel", TELL),
        Reason::TunnelFailed => ("the provider's gateway cannot serve the tunnel", TELL),
        Reason::TunnelNotReady => ("the tunnel is not ready at the provider's gateway", WAIT),
        Reason::PortInUse | Reason::ListenerFailed => ("the provider's gateway cannot open the port", TELL),
        Reason::AgentOffline | Reason::AgentSilent => {
            ("the provider's network behind the gateway is not connected", TELL)
        }
        Reason::AgentPending => ("the provider's network is taking over the newest change", WAIT),
        Reason::AgentRefused => ("the provider's network does not permit the service", TELL),
        Reason::AgentExhausted => ("the provider's side takes no more connections", TELL),
        Reason::AgentDuplicated => ("the provider's side is configured twice", TELL),
        Reason::TargetUnreachable => ("the provider's network does not reach the service", TELL),
        Reason::TargetClosed => ("the service ends connections at once", TELL),
        Reason::RedundancyLost => (
            "one of the provider's two gateways serves it, and the other one does not",
            "Bring up both tunnels at your device if one is down; otherwise tell your provider",
        ),
        Reason::PeerDown => (
            "your device is not connected",
            "Bring up the tunnel at your device first, as this page says above",
        ),
        Reason::ConnectionsFail => ("the last connections failed at the provider's side", TELL),
        Reason::ConnectionsUnanswered => (
            "the service has sent nothing on the last connections",
            "Check that your client speaks the protocol of the service, then tell your provider",
        ),
        Reason::ConnectionsRefused => (
            "the provider's gateway refuses connections: from addresses that may not connect, or because there are too many",
            "Connect from a host that your provider admits, and end connections that are not needed",
        ),
        Reason::ConnectionLimit => (
            "as many connections are open as the provider's gateway allows",
            "End connections that are not needed, or ask your provider for more",
        ),
        Reason::PeerAddressTaken => {
            ("the provider's gateway does not serve your device's address for this tunnel", TELL)
        }
        Reason::Disabled => ("your provider has disabled it", "Ask your provider to enable it"),
        Reason::Expired => {
            ("the time for which your provider opened it is over", "Ask your provider to prolong it")
        }
        Reason::Deleted => ("your provider has deleted it", "Ask your provider what replaces it"),
    };
    Words::new(message, advice)
}
