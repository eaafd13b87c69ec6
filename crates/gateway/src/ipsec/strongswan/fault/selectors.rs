//! Traffic selectors in charon's log that have nothing in common with the tunnel's.

use ipnet::Ipv4Net;
use wicketgate_model::ConnectionFault;

use super::list::listed;
use crate::ipsec::strongswan::{
    conf::Ends,
    peer_fault::{PeerFault, quoted},
};

/// `ours` and `theirs` are the traffic selectors that the peer proposes for each side.
pub(super) fn selector(ours: &str, theirs: &str, ends: &Ends) -> PeerFault {
    let fault = |cause: String, cure: String| {
        PeerFault::with_cure(ConnectionFault::TrafficSelectorsDiffer, cause, cure)
    };
    let all = |text: &str| listed(text.split_whitespace().map(quoted).collect());
    let peer_cidr = ends.peer_cidr.get();
    if has_none(theirs, peer_cidr) {
        return fault(
            format!("the peer's traffic selector {} is outside peerCidr, {peer_cidr}", all(theirs)),
            "change the device's local network or peerCidr".to_owned(),
        );
    }
    let load_balancer = Ipv4Net::from(ends.load_balancer);
    if has_none(ours, load_balancer) {
        return fault(
            format!("the peer asks for {}, but the tunnel only offers loadBalancerIp", all(ours)),
            format!("set {load_balancer} as the remote network on the site's device"),
        );
    }
    fault(
        "the peer's traffic selectors cannot be used".to_owned(),
        format!(
            "set {peer_cidr} as the local and {load_balancer} as the remote network, with all protocols and ports, on \
             the site's device"
        ),
    )
}

/// Whether no network of a list is, or has, a part of `network`.
fn has_none(list: &str, network: Ipv4Net) -> bool {
    list.split_whitespace().all(|word| {
        let net = word.split('[').next().unwrap_or(word).parse::<Ipv4Net>();
        net.is_ok_and(|net| !net.contains(&network) && !network.contains(&net))
    })
}
