//! Why a peer cannot connect, derived from charon's log. Pure: log lines in, a [`PeerFault`] out.
//!
//! charon handles one IKE message at a time. It logs the message (`parsed …`), its findings, and the answer
//! (`generating …`), whose notify payload reports the failure. The findings give the cause. Text that comes from the
//! peer is quoted without control characters and up to a limit.

mod identity;
mod list;
mod proposals;

use ipnet::Ipv4Net;
use wicketgate_model::ConnectionFault;

use super::{
    conf::Ends,
    peer_fault::{PeerFault, quoted},
};
use identity::Identities;
use list::listed;
use proposals::Offered;

/// The notifies of a failure, as charon abbreviates them in its log, and as RFC 7296 §3.10.1 names them.
const FAILURES: [(&str, &str); 6] = [
    ("AUTH_FAILED", "AUTHENTICATION_FAILED"),
    ("NO_PROP", "NO_PROPOSAL_CHOSEN"),
    ("TS_UNACCEPT", "TS_UNACCEPTABLE"),
    ("INVAL_SYN", "INVALID_SYNTAX"),
    ("INT_ADDR_FAIL", "INTERNAL_ADDRESS_FAILURE"),
    ("US_CRIT_PAYLOAD", "UNSUPPORTED_CRITICAL_PAYLOAD"),
];

/// The findings about the current IKE message.
#[derive(Debug, Default)]
pub(super) struct Faults {
    ids: Option<Identities>,
    /// The message creates a CHILD SA other than the first one.
    is_later_child: bool,
    offered: Option<Offered>,
    cause: Option<PeerFault>,
    /// The failure was reported without its cause: charon's threads do not log in order.
    is_unexplained: bool,
}

impl Faults {
    /// Processes a log line. Returns a fault if the line reports a failure. `ends` is what the peer should ask for.
    pub(super) fn log(&mut self, line: &str, ends: Option<&Ends>) -> Option<PeerFault> {
        if line.starts_with("parsed ") {
            let is_later_child = line.starts_with("parsed CREATE_CHILD_SA request");
            *self = Self { is_later_child, ..Self::default() };
        }
        if let Some(notify) = failure(line) {
            let before = std::mem::take(self);
            self.is_unexplained = before.cause.is_none();
            return Some(before.cause.unwrap_or_else(|| from_notify(line, notify, before.offered, ends)));
        }
        if line.starts_with("giving up after ") && line.contains("retransmit") {
            *self = Self::default();
            return Some(PeerFault::new(ConnectionFault::PeerDoesNotAnswer, "the peer does not answer"));
        }
        if line.starts_with("ignoring IKE_SA_INIT, hitting IKE_SA limit") {
            let cause =
                "the peer opens more IKE SAs than it may have at a time, and leaves the earlier ones open";
            let cure = "have the site's device end an IKE SA before it opens another one";
            return Some(PeerFault::with_cure(ConnectionFault::NegotiationFailed, cause, cure));
        }
        if line.starts_with("unable to install ") && line.ends_with(" in kernel") {
            // The notify that follows blames the peer's selectors or proposals, and in a rekey by the gateway there is none.
            let cause = format!("the gateway cannot use the CHILD SA: {line}");
            let fault = PeerFault::new(ConnectionFault::ChildSaNotInstalled, cause);
            self.cause = Some(fault.clone());
            return Some(fault);
        }
        if let Some(ids) = line.strip_prefix("looking for peer configs matching ") {
            self.ids = Identities::read(ids);
        } else if line == "no matching peer config found" {
            self.cause = self.ids.take().and_then(|ids| ids.fault(None, ends?));
        } else if let Some(name) =
            line.strip_prefix("selected peer config '").and_then(|l| l.strip_suffix('\''))
        {
            self.cause = self.ids.take().and_then(|ids| ids.fault(Some(name), ends?));
        } else if self.cause.is_none() && line.starts_with("tried ") && line.ends_with("but MAC mismatched") {
            self.cause =
                Some(PeerFault::new(ConnectionFault::PreSharedKeysDiffer, "the pre-shared keys differ"));
        } else if let Some(method) = other_method(line) {
            let cause = format!("the peer authenticates with {method}, and the tunnel has a pre-shared key");
            self.cause = Some(PeerFault::new(ConnectionFault::AuthenticationMethodDiffers, cause));
        } else if line.starts_with("peer requested virtual IP ") {
            let cause = "the peer asks for a virtual IP address, and the gateway assigns none";
            self.cause = Some(PeerFault::new(ConnectionFault::VirtualIpRequested, cause));
        } else if let Some(offered) = line.strip_prefix("received proposals: ") {
            self.offered = Some(Offered::read(offered));
        } else if let Some(own) = line.strip_prefix("configured proposals: ").filter(|_| self.is_later_child)
        {
            if let Some(offered) = &mut self.offered {
                offered.compare(own);
            }
        } else if let Some(selectors) =
            line.strip_prefix("traffic selectors ").and_then(|l| l.strip_suffix(" unacceptable"))
        {
            self.cause =
                selectors.split_once(" === ").and_then(|(ours, theirs)| Some(selector(ours, theirs, ends?)));
        } else if line.starts_with("no IKE config found for ") && line.ends_with("sending NO_PROPOSAL_CHOSEN")
        {
            // The one configuration is for this peer and IKEv2, so only IKEv1 finds none.
            self.cause = Some(PeerFault::new(ConnectionFault::IkeVersionDiffers, "the peer speaks IKEv1"));
        }
        if self.is_unexplained { self.cause.take() } else { None }
    }
}

/// How the peer authenticates, if not with a pre-shared key.
fn other_method(line: &str) -> Option<&'static str> {
    if line == "peer requested EAP, config unacceptable" {
        return Some("EAP");
    }
    let is_key = line.starts_with("no trusted ") && line.contains(" public key found for ")
        || line.starts_with("constraint requires pre-shared key authentication, but public key");
    is_key.then_some("a certificate or a public key")
}

/// Whether the peer rejects the gateway's authentication: it has another of the tunnel's keys. It reports this after its
/// own authentication (RFC 7296 §2.21.2), or in its response if the gateway initiated.
pub(super) fn peer_refuses(line: &str) -> bool {
    (line.starts_with("parsed INFORMATIONAL request") || line.starts_with("parsed IKE_AUTH response"))
        && failure(line) == Some("AUTHENTICATION_FAILED")
}

/// The failure in a received or sent message: `generating IKE_AUTH response 1 [ N(AUTH_FAILED) ]`.
fn failure(line: &str) -> Option<&'static str> {
    if !(line.starts_with("parsed ") || line.starts_with("generating ")) {
        return None;
    }
    let notifies = line.split_once('[')?.1.split_whitespace();
    notifies
        .filter_map(|word| word.strip_prefix("N(")?.strip_suffix(')'))
        .find_map(|name| FAILURES.iter().find(|(short, _)| *short == name).map(|(_, long)| *long))
}

/// The fault for a notify without findings, for example if it is the peer that refuses.
fn from_notify(line: &str, notify: &str, offered: Option<Offered>, ends: Option<&Ends>) -> PeerFault {
    let is_received = line.starts_with("parsed ");
    let (reason, cause) = match (notify, offered) {
        ("AUTHENTICATION_FAILED", _) if is_received => {
            let id = ends.map(|e| format!(", {}", e.gateway_id)).unwrap_or_default();
            let cause = format!("the peer rejects the gateway's key or its identity{id}");
            (ConnectionFault::PeerRefusedGateway, cause)
        }
        ("NO_PROPOSAL_CHOSEN", Some(offered)) => return offered.fault(),
        ("NO_PROPOSAL_CHOSEN", None) if is_received => return proposals::refused(line),
        ("TS_UNACCEPTABLE", _) if is_received => (
            ConnectionFault::TrafficSelectorsDiffer,
            "the peer rejects the tunnel's traffic selectors".to_owned(),
        ),
        _ => (ConnectionFault::NegotiationFailed, format!("IKE failed with {notify}")),
    };
    PeerFault::new(reason, cause)
}

/// `ours` and `theirs` are the traffic selectors that the peer proposes for each side.
fn selector(ours: &str, theirs: &str, ends: &Ends) -> PeerFault {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends() -> Ends {
        Ends {
            gateway_id: "198.51.100.1".to_owned(),
            peer_id: "site.example".parse().unwrap(),
            load_balancer: "100.64.0.1".parse().unwrap(),
            peer_cidr: "10.0.0.0/16".parse().unwrap(),
        }
    }

    fn last(lines: &[&str]) -> Option<PeerFault> {
        let mut faults = Faults::default();
        lines.iter().map(|line| faults.log(line, Some(&ends()))).last().flatten()
    }

    const CAME: &str = "parsed IKE_AUTH request 1 [ IDi IDr AUTH SA TSi TSr ]";
    const REFUSED: &str = "generating IKE_AUTH response 1 [ N(AUTH_FAILED) ]";

    #[test]
    fn a_cause_belongs_to_its_own_message() {
        const MISMATCH: &str = "tried 2 shared keys for '198.51.100.1' - 'site.example', but MAC mismatched";
        assert_eq!(last(&[CAME, MISMATCH]), None);
        assert_eq!(last(&[CAME, MISMATCH, REFUSED]).unwrap().reason, ConnectionFault::PreSharedKeysDiffer);
        assert_eq!(last(&[MISMATCH, CAME, REFUSED]).unwrap().reason, ConnectionFault::NegotiationFailed);
        assert_eq!(
            last(&[CAME, MISMATCH, REFUSED, REFUSED]).unwrap().reason,
            ConnectionFault::NegotiationFailed
        );
    }

    #[test]
    fn a_cause_that_is_logged_after_its_failure_is_reported() {
        const MISMATCH: &str = "tried 2 shared keys for '198.51.100.1' - 'site.example', but MAC mismatched";
        assert_eq!(last(&[CAME, REFUSED, MISMATCH]).unwrap().reason, ConnectionFault::PreSharedKeysDiffer);
        assert_eq!(last(&[CAME, REFUSED, CAME, MISMATCH]), None);
    }

    #[test]
    fn only_the_peer_refuses_the_gateway() {
        assert_eq!(last(&[REFUSED]).unwrap().reason, ConnectionFault::NegotiationFailed);
        for refusal in [
            "parsed INFORMATIONAL request 2 [ N(AUTH_FAILED) ]",
            "parsed IKE_AUTH response 1 [ N(AUTH_FAILED) ]",
        ] {
            assert_eq!(last(&[refusal]).unwrap().reason, ConnectionFault::PeerRefusedGateway);
        }
        assert!(!peer_refuses(REFUSED));
        assert!(peer_refuses("parsed IKE_AUTH response 1 [ N(AUTH_FAILED) ]"));
        assert!(peer_refuses("parsed INFORMATIONAL request 2 [ N(AUTH_FAILED) ]"));
    }

    #[test]
    fn a_refusal_by_the_peer_has_the_same_reason_as_one_by_the_gateway() {
        for (exchange, reason) in [
            ("IKE_SA_INIT response 0", ConnectionFault::NoCommonIkeProposal),
            ("IKE_AUTH response 1", ConnectionFault::NoCommonEspProposal),
            ("CREATE_CHILD_SA response 2", ConnectionFault::NoCommonEspProposal),
        ] {
            assert_eq!(last(&[&format!("parsed {exchange} [ N(NO_PROP) ]")]).unwrap().reason, reason);
        }
        let selectors = last(&["parsed IKE_AUTH response 1 [ N(TS_UNACCEPT) ]"]).unwrap();
        assert_eq!(selectors.reason, ConnectionFault::TrafficSelectorsDiffer);
    }

    #[test]
    fn a_peer_that_does_not_answer_has_its_own_fault() {
        let fault = last(&[CAME, "giving up after 4 retransmits"]).unwrap();
        assert_eq!(fault.reason, ConnectionFault::PeerDoesNotAnswer);
        assert!(fault.cure.contains("UDP 500 and 4500"));
    }

    #[test]
    fn long_words_and_lists_are_truncated() {
        let id = "a".repeat(2000);
        let looked = format!("looking for peer configs matching 169.254.1.2[198.51.100.1]...203.0.0.2[{id}]");
        let PeerFault { reason, cause, .. } =
            last(&[CAME, &looked, "no matching peer config found", REFUSED]).unwrap();
        assert_eq!(reason, ConnectionFault::PeerIdentityDiffers);
        assert!(cause.len() < 300 && cause.contains("aaa…"), "{cause}");
        let many =
            format!("received proposals: {}", ["ESP:AES_CBC_128/HMAC_SHA1_96/NO_EXT_SEQ"; 9].join(", "));
        let PeerFault { reason, cause, .. } =
            last(&[CAME, &many, "generating IKE_AUTH response 1 [ N(NO_PROP) ]"]).unwrap();
        assert_eq!(reason, ConnectionFault::NoCommonEspProposal);
        assert!(cause.contains("AES_CBC_128/HMAC_SHA1_96, AES_CBC_128") && cause.contains(" and 6 more"));
    }

    #[test]
    fn common_selectors_are_not_reported() {
        let said = |ts: &str| last(&[CAME, ts, "generating IKE_AUTH response 1 [ N(TS_UNACCEPT) ]"]).unwrap();
        assert!(
            said("traffic selectors 100.64.0.1/32 === 10.1.0.0/16 10.2.0.0/16 unacceptable")
                .cause
                .contains("peerCidr, ")
        );
        assert!(
            said("traffic selectors 100.65.0.0/16 === 10.0.7.0/24 unacceptable")
                .cause
                .contains("asks for 100.65.")
        );
        let ports = said("traffic selectors 0.0.0.0/0[tcp/443] === 10.0.0.0/16 unacceptable");
        assert!(ports.cure.contains("all protocols and ports"), "{ports:?}");
    }

    proptest! {
        #[test]
        fn no_lines_panic(lines in proptest::collection::vec(
            "(parsed |generating |looking for peer configs matching |received proposals: |traffic selectors |tried )?\
             .{0,40}(\\[|\\]\\.\\.\\.|\\]| === | unacceptable| N\\(NO_PROP\\) |no matching peer config found)?.{0,40}", 0..6)) {
            let mut faults = Faults::default();
            for line in lines {
                faults.log(&line, Some(&ends()));
            }
        }
    }
}
