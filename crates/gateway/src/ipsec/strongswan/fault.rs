//! Why a peer can't connect, from what charon's log says of it. Pure: lines go in, a reason and a sentence come out.
//!
//! One message of IKE is answered at a time: charon logs what came (`parsed …`), what it thinks of it, and the answer
//! (`generating …`), whose notify says that it failed. What it thought is the cause. The peer's own words are quoted
//! in the sentence, no more than a bound of them, and without control characters.

use ipnet::Ipv4Net;
use wicketgate_model::ConnectionFault;

use super::conf::Ends;

/// The notifies of a failure, as charon abbreviates them in its log, and as RFC 7296 §3.10.1 names them.
const FAILURES: [(&str, &str); 6] = [
    ("AUTH_FAILED", "AUTHENTICATION_FAILED"),
    ("NO_PROP", "NO_PROPOSAL_CHOSEN"),
    ("TS_UNACCEPT", "TS_UNACCEPTABLE"),
    ("INVAL_SYN", "INVALID_SYNTAX"),
    ("INT_ADDR_FAIL", "INTERNAL_ADDRESS_FAILURE"),
    ("US_CRIT_PAYLOAD", "UNSUPPORTED_CRITICAL_PAYLOAD"),
];

/// Of what the peer said, for a person to read: characters of a word, and how many proposals or networks.
const QUOTED: usize = 100;
const LISTED: usize = 3;

/// What the lines since the last message say.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// What charon looked for: the identity that the peer asks for, and the peer's own.
    ids: Option<(String, String)>,
    offered: Option<Offer>,
    cause: Option<(ConnectionFault, String)>,
}

#[derive(Debug)]
struct Offer {
    is_esp: bool,
    proposals: String,
}

impl Faults {
    /// Takes a line; answers with a fault when it is the one that says that something failed. `ends` is what the peer
    /// should ask for, if that is known.
    pub(super) fn log(&mut self, line: &str, ends: Option<&Ends>) -> Option<(ConnectionFault, String)> {
        if line.starts_with("parsed ") {
            *self = Self::default();
        }
        if let Some(notify) = failure(line) {
            let before = std::mem::take(self);
            return Some(before.cause.unwrap_or_else(|| from_notify(line, notify, before.offered, ends)));
        }
        if line.starts_with("giving up after ") && line.contains("retransmit") {
            *self = Self::default();
            return Some((ConnectionFault::PeerDoesNotAnswer, SILENCE.to_owned()));
        }
        if let Some(ids) = line.strip_prefix("looking for peer configs matching ") {
            self.ids = identities(ids);
        } else if line == "no matching peer config found" {
            self.cause = self.ids.take().and_then(|(asked, own)| identity(&asked, &own, ends?));
        } else if line.starts_with("tried ") && line.ends_with("but MAC mismatched") {
            self.cause = Some((ConnectionFault::PreSharedKeysDiffer, KEYS.to_owned()));
        } else if let Some(offered) = line.strip_prefix("received proposals: ") {
            self.offered = Some(offer(offered));
        } else if let Some(selectors) =
            line.strip_prefix("traffic selectors ").and_then(|l| l.strip_suffix(" unacceptable"))
        {
            self.cause = selectors.split_once(" === ").and_then(|(ours, theirs)| {
                Some((ConnectionFault::TrafficSelectorsDiffer, selector(ours, theirs, ends?)))
            });
        } else if line.starts_with("no IKE config found for ") && line.ends_with("sending NO_PROPOSAL_CHOSEN")
        {
            // There is one, for this peer and for IKEv2: charon finds none only for a peer that speaks IKEv1.
            self.cause = Some((ConnectionFault::IkeVersionDiffers, VERSION.to_owned()));
        }
        None
    }
}

const KEYS: &str = "the pre-shared keys differ: put the key of the tunnel's vpn-config into the site's device, or \
    give the tunnel the device's key with POST …/psk";
const SILENCE: &str = "the peer does not answer: make sure that the site's device is up, that it has the address \
    peerPublicIp, and that UDP 500 and 4500 get through both ways";
const VERSION: &str = "the peer speaks IKEv1: set its device to IKEv2";

/// Whether the peer does not take what we proved to it: it has another one of the tunnel's keys. It says so after it has
/// proved itself (RFC 7296 §2.21.2), or, where the gateway called, in its answer.
pub(super) fn peer_refuses(line: &str) -> bool {
    (line.starts_with("parsed INFORMATIONAL request") || line.starts_with("parsed IKE_AUTH response"))
        && failure(line) == Some("AUTHENTICATION_FAILED")
}

/// The failure that a message which came or went carries: `generating IKE_AUTH response 1 [ N(AUTH_FAILED) ]`.
fn failure(line: &str) -> Option<&'static str> {
    if !(line.starts_with("parsed ") || line.starts_with("generating ")) {
        return None;
    }
    let notifies = line.split_once('[')?.1.split_whitespace();
    notifies
        .filter_map(|word| word.strip_prefix("N(")?.strip_suffix(')'))
        .find_map(|name| FAILURES.iter().find(|(short, _)| *short == name).map(|(_, long)| *long))
}

/// What a notify says when charon said nothing else, as when it is the peer that refuses.
fn from_notify(
    line: &str,
    notify: &str,
    offered: Option<Offer>,
    ends: Option<&Ends>,
) -> (ConnectionFault, String) {
    match (notify, offered) {
        ("AUTHENTICATION_FAILED", _) if line.starts_with("parsed ") => {
            let id = ends.map(|e| format!(", {}", e.gateway_id)).unwrap_or_default();
            let message = format!(
                "the peer does not take the gateway's key, or its identity{id}: put both from the tunnel's \
                 vpn-config into the site's device; while two keys are valid, the gateway proves the other one at \
                 the next try"
            );
            (ConnectionFault::PeerRefusedGateway, message)
        }
        ("NO_PROPOSAL_CHOSEN", Some(Offer { is_esp, proposals })) => {
            let (fault, sa, property) = if is_esp {
                (ConnectionFault::NoCommonEspProposal, "CHILD SA", "espProposals")
            } else {
                (ConnectionFault::NoCommonIkeProposal, "IKE SA", "ikeProposals")
            };
            let message = format!(
                "the peer offered {proposals} for the {sa}, which is none of {property}: set one of the tunnel's \
                 vpn-config on the site's device, or name what it offers in {property}, unless it is weak"
            );
            (fault, message)
        }
        _ => (
            ConnectionFault::NegotiationFailed,
            format!("IKE failed with {notify}: compare the site's device with the tunnel's vpn-config"),
        ),
    }
}

/// `169.254.1.2[198.51.100.1]...203.0.113.2[site.example]`: the identity that is asked for, and the peer's.
fn identities(text: &str) -> Option<(String, String)> {
    let (asked, own) = text.split_once("]...")?;
    let asked = asked.split_once('[')?.1;
    let own = own.split_once('[')?.1.strip_suffix(']')?;
    Some((asked.to_owned(), own.to_owned()))
}

fn identity(asked: &str, own: &str, ends: &Ends) -> Option<(ConnectionFault, String)> {
    if own != ends.peer_id {
        let message = format!(
            "the peer initiation itself {}, but the tunnel's peerId is {}: change either the device's local identity or \
             peerId",
            quoted(own),
            ends.peer_id
        );
        return Some((ConnectionFault::PeerIdentityDiffers, message));
    }
    let message = format!(
        "the peer asks for the identity {}, but the gateway's is {}: set that on the site's device as the remote one",
        quoted(asked),
        ends.gateway_id
    );
    (asked != ends.gateway_id && asked != "%any")
        .then_some((ConnectionFault::GatewayIdentityDiffers, message))
}

/// `IKE:AES_CBC_128/HMAC_SHA1_96/PRF_HMAC_SHA1/MODP_2048, IKE:…`
fn offer(text: &str) -> Offer {
    let all: Vec<&str> = text.split(", ").collect();
    let proposal = |p: &&str| {
        let p = p.split_once(':').map_or(*p, |(_, p)| p);
        quoted(p.strip_suffix("/NO_EXT_SEQ").unwrap_or(p))
    };
    Offer { is_esp: text.starts_with("ESP:"), proposals: listed(all.iter().map(proposal).collect()) }
}

/// The traffic selectors that the peer proposes for our side, and for its own.
fn selector(ours: &str, theirs: &str, ends: &Ends) -> String {
    let all = |text: &str| listed(text.split_whitespace().map(quoted).collect());
    if has_none(theirs, ends.peer_cidr.get()) {
        return format!(
            "the peer's traffic selector {} is outside peerCidr, {}: change either the device's local network or \
             peerCidr",
            all(theirs),
            ends.peer_cidr.get()
        );
    }
    let load_balancer = Ipv4Net::from(ends.load_balancer);
    if has_none(ours, load_balancer) {
        return format!(
            "the peer asks for {}, but behind the tunnel there is loadBalancerIp alone: set {load_balancer} as the \
             remote network on the site's device",
            all(ours)
        );
    }
    format!(
        "the peer's traffic selectors can't be used: set {} as the local and {load_balancer} as the remote network, \
         with all protocols and ports, on the site's device",
        ends.peer_cidr.get()
    )
}

/// Whether no network of a list is, or has, a part of `network`.
fn has_none(list: &str, network: Ipv4Net) -> bool {
    list.split_whitespace().all(|word| {
        let net = word.split('[').next().unwrap_or(word).parse::<Ipv4Net>();
        net.is_ok_and(|net| !net.contains(&network) && !network.contains(&net))
    })
}

fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().filter(|c| !c.is_control()).take(QUOTED).collect();
    if text.chars().count() > QUOTED {
        shown.push('…');
    }
    shown
}

fn listed(mut all: Vec<String>) -> String {
    let more = all.len().saturating_sub(LISTED);
    all.truncate(LISTED);
    let shown = all.join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends() -> Ends {
        Ends {
            gateway_id: "198.51.100.1".to_owned(),
            peer_id: "site.example".to_owned(),
            load_balancer: "100.64.0.1".parse().unwrap(),
            peer_cidr: "10.0.0.0/16".parse().unwrap(),
        }
    }

    fn last(lines: &[&str]) -> Option<(ConnectionFault, String)> {
        let mut faults = Faults::default();
        lines.iter().map(|line| faults.log(line, Some(&ends()))).last().flatten()
    }

    const CAME: &str = "parsed IKE_AUTH request 1 [ IDi IDr AUTH SA TSi TSr ]";
    const REFUSED: &str = "generating IKE_AUTH response 1 [ N(AUTH_FAILED) ]";

    #[test]
    fn a_cause_belongs_to_its_own_message() {
        const MISMATCH: &str = "tried 2 shared keys for '198.51.100.1' - 'site.example', but MAC mismatched";
        assert_eq!(last(&[CAME, MISMATCH]), None);
        assert_eq!(last(&[CAME, MISMATCH, REFUSED]).unwrap().0, ConnectionFault::PreSharedKeysDiffer);
        assert_eq!(last(&[MISMATCH, CAME, REFUSED]).unwrap().0, ConnectionFault::NegotiationFailed);
        assert_eq!(last(&[CAME, MISMATCH, REFUSED, REFUSED]).unwrap().0, ConnectionFault::NegotiationFailed);
    }

    #[test]
    fn only_the_peer_refuses_the_gateway() {
        assert_eq!(last(&[REFUSED]).unwrap().0, ConnectionFault::NegotiationFailed);
        for refusal in [
            "parsed INFORMATIONAL request 2 [ N(AUTH_FAILED) ]",
            "parsed IKE_AUTH response 1 [ N(AUTH_FAILED) ]",
        ] {
            assert_eq!(last(&[refusal]).unwrap().0, ConnectionFault::PeerRefusedGateway);
        }
        assert!(!peer_refuses(REFUSED));
        assert!(peer_refuses("parsed IKE_AUTH response 1 [ N(AUTH_FAILED) ]"));
        assert!(peer_refuses("parsed INFORMATIONAL request 2 [ N(AUTH_FAILED) ]"));
    }

    #[test]
    fn silence_has_a_name() {
        let (fault, message) = last(&[CAME, "giving up after 4 retransmits"]).unwrap();
        assert_eq!(fault, ConnectionFault::PeerDoesNotAnswer);
        assert!(message.contains("UDP 500 and 4500"));
    }

    #[test]
    fn long_words_and_lists_are_cut() {
        let id = "a".repeat(2000);
        let looked = format!("looking for peer configs matching 169.254.1.2[198.51.100.1]...203.0.0.2[{id}]");
        let (fault, message) = last(&[CAME, &looked, "no matching peer config found", REFUSED]).unwrap();
        assert_eq!(fault, ConnectionFault::PeerIdentityDiffers);
        assert!(message.len() < 300 && message.contains("aaa…"), "{message}");
        let many =
            format!("received proposals: {}", ["ESP:AES_CBC_128/HMAC_SHA1_96/NO_EXT_SEQ"; 9].join(", "));
        let (fault, message) = last(&[CAME, &many, "generating IKE_AUTH response 1 [ N(NO_PROP) ]"]).unwrap();
        assert_eq!(fault, ConnectionFault::NoCommonEspProposal);
        assert!(message.contains("AES_CBC_128/HMAC_SHA1_96, AES_CBC_128") && message.contains(" and 6 more"));
    }

    #[test]
    fn what_is_in_common_is_not_blamed() {
        let said =
            |ts: &str| last(&[CAME, ts, "generating IKE_AUTH response 1 [ N(TS_UNACCEPT) ]"]).unwrap().1;
        assert!(
            said("traffic selectors 100.64.0.1/32 === 10.1.0.0/16 10.2.0.0/16 unacceptable")
                .contains("peerCidr, ")
        );
        assert!(
            said("traffic selectors 100.65.0.0/16 === 10.0.7.0/24 unacceptable").contains("asks for 100.65.")
        );
        let ports = said("traffic selectors 0.0.0.0/0[tcp/443] === 10.0.0.0/16 unacceptable");
        assert!(ports.contains("all protocols and ports"), "{ports}");
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
