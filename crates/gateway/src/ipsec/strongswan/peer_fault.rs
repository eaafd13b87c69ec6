//! A fault of a peer, with its usual cure.

use wicketgate_model::ConnectionFault;

/// The most characters of a word from the peer that are quoted.
const QUOTED: usize = 100;

/// Why the peer could not connect: see [`wicketgate_model::ConnectionError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PeerFault {
    pub(super) reason: ConnectionFault,
    pub(super) cause: String,
    pub(super) cure: String,
}

impl PeerFault {
    /// A fault with the usual cure of its reason.
    pub(super) fn new(reason: ConnectionFault, cause: impl Into<String>) -> Self {
        let cure = match reason {
            ConnectionFault::PreSharedKeysDiffer => {
                "put the key from the tunnel's vpn-config (`wicketgate tunnel config`) into the site's device, or give the \
                 tunnel the device's key (`wicketgate tunnel rotate-key --pre-shared-key-file`, or POST …/psk)"
            }
            ConnectionFault::PeerIdentityDiffers => "change the device's local identity or peerId",
            ConnectionFault::TrafficSelectorsDiffer => {
                "set the networks from the tunnel's vpn-config on the site's device"
            }
            ConnectionFault::NoCommonIkeProposal | ConnectionFault::NoCommonEspProposal => {
                "set a proposal from the tunnel's vpn-config on the site's device, or add the device's proposal to the \
                 tunnel unless it is weak"
            }
            ConnectionFault::PeerRefusedGateway => {
                "copy both from the tunnel's vpn-config to the site's device; while two keys are valid, the gateway uses \
                 the other one for the next attempt"
            }
            ConnectionFault::AuthenticationMethodDiffers => {
                "set the site's device to authenticate both ends with the pre-shared key"
            }
            ConnectionFault::VirtualIpRequested => {
                "turn off mode config (a virtual or dynamic address) on the site's device, whose local network is peerCidr"
            }
            ConnectionFault::ChildSaWithdrawn => {
                "see its log: its kernel may have no ESP (modprobe esp4), or another of its connections has the same networks"
            }
            ConnectionFault::ChildSaNotInstalled => {
                "the site's device needs no change: restart the gateway with RUST_LOG=debug, and see the lines KNL of its log"
            }
            ConnectionFault::IkeVersionDiffers => "set its device to IKEv2",
            ConnectionFault::PeerDoesNotAnswer => {
                "check that the site's device is up and has the address peerPublicIp, and that UDP 500 and 4500 pass in \
                 both directions"
            }
            ConnectionFault::NatTraversalBlocked => {
                "let UDP 4500 pass in both directions, in the firewalls at the site, on the way, and at the gateway"
            }
            ConnectionFault::AnswersLost => {
                "let UDP 500 and 4500 pass from the gateway to the site's device, whose firewall or NAT drops them"
            }
            ConnectionFault::GatewayFailed => {
                "the site's device needs no change; if it recurs, see the gateway's log"
            }
            ConnectionFault::PeerDuplicated => {
                "turn one of them off, or give it a tunnel of its own with another public address and another peerId"
            }
            ConnectionFault::ChildSaUnknown => {
                "have the device end its connection and start it again; the gateway has told it with INVALID_SPI"
            }
            ConnectionFault::PeerAddressDiffers => {
                "set peerPublicIp to the address that the site's device sends from"
            }
            ConnectionFault::GatewayIdentityDiffers | ConnectionFault::NegotiationFailed => {
                "compare the site's device with the tunnel's vpn-config"
            }
        };
        Self::with_cure(reason, cause, cure)
    }

    pub(super) fn with_cure(
        reason: ConnectionFault,
        cause: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self { reason, cause: plain(cause.into()), cure: plain(cure.into()) }
    }
}

/// Any part of charon's lines may be the peer's: none of it commands a terminal.
fn plain(text: String) -> String {
    if text.contains(char::is_control) { text.replace(char::is_control, "") } else { text }
}

/// A word from the peer, without control characters.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().filter(|c| !c.is_control()).take(QUOTED).collect();
    if text.chars().count() > QUOTED {
        shown.push('…');
    }
    shown
}
