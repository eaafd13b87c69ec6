//! Identities of IKE in charon's log. charon shows no types: the type is that of the probe that the peer matched, or what
//! the probes leave.

use std::net::IpAddr;

use wicketgate_model::{ConnectionFault, IdentityType, PeerId};

use crate::ipsec::strongswan::{
    conf::{EMAIL_PROBE, Ends, FQDN_PROBE, KEY_ID_PROBE},
    peer_fault::{PeerFault, quoted},
};

/// The identity that the peer asks for, and its own.
#[derive(Debug, Clone)]
pub(super) struct Identities {
    asked: String,
    own: String,
}

impl Identities {
    /// Reads `169.254.1.2[198.51.100.1]...203.0.113.2[site.example]`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (asked, own) = text.split_once("]...")?;
        let asked = asked.split_once('[')?.1;
        let own = own.split_once('[')?.1.strip_suffix(']')?;
        Some(Self { asked: asked.to_owned(), own: own.to_owned() })
    }

    /// What is wrong, if the peer matched the connection `selected`, or none.
    pub(super) fn fault(&self, selected: Option<&str>, ends: &Ends) -> Option<PeerFault> {
        let kind = match selected {
            Some(FQDN_PROBE) => IdentityType::Fqdn,
            Some(EMAIL_PROBE) => IdentityType::Email,
            Some(KEY_ID_PROBE) => IdentityType::KeyId,
            Some(_) => return None,
            None => self.left_by_probes(),
        };
        if !ends.peer_id.is(kind, &self.own) {
            return Some(self.other_peer(kind, &ends.peer_id));
        }
        let id = &ends.gateway_id;
        let (cause, cure) = match self.asked.as_str() {
            "%any" => return None,
            asked if asked == id => (
                format!("the peer asks for the identity {id} of another type than the gateway's, an address"),
                format!("set {id}, of the type address, as the remote identity on the site's device"),
            ),
            asked => (
                format!("the peer asks for the identity {}, but the gateway's is {id}", quoted(asked)),
                format!("set {id} as the remote identity on the site's device"),
            ),
        };
        Some(PeerFault::with_cure(ConnectionFault::GatewayIdentityDiffers, cause, cure))
    }

    /// The type of an identity that is neither a host name nor a mail address, nor the tunnel's as a key id.
    fn left_by_probes(&self) -> IdentityType {
        match self.own.parse() {
            Ok(IpAddr::V4(_)) => IdentityType::Ipv4,
            Ok(IpAddr::V6(_)) => IdentityType::Ipv6,
            Err(_) if self.own.contains('=') => IdentityType::DistinguishedName,
            Err(_) => IdentityType::KeyId,
        }
    }

    fn other_peer(&self, kind: IdentityType, peer_id: &PeerId) -> PeerFault {
        let own = quoted(&self.own);
        if kind == peer_id.kind() {
            let value = peer_id.value();
            let cause = format!("the peer identifies itself as {own}, but the tunnel's peerId is {value}");
            return PeerFault::new(ConnectionFault::PeerIdentityDiffers, cause);
        }
        let cause = format!(
            "the peer identifies itself as the {} {own}, but the tunnel's peerId is the {} {}",
            kind.described(),
            peer_id.kind().described(),
            peer_id.value()
        );
        let typed = match kind {
            IdentityType::Ipv4 | IdentityType::Ipv6 => self.own.clone(),
            kind => format!("{kind}:{}", self.own),
        };
        let cure = match typed.parse::<PeerId>() {
            Ok(typed) => format!("change the type of the device's local identity, or peerId to {typed}"),
            Err(_) => "change the device's local identity to the tunnel's peerId".to_owned(),
        };
        PeerFault::with_cure(ConnectionFault::PeerIdentityDiffers, cause, cure)
    }
}
