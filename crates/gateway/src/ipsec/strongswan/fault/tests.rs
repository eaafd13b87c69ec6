//! Faults of recorded log lines.

use super::{fuzz::ends, *};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// What the last line reports, each with its IKE SA.
fn last_of(lines: &[(u64, &str)]) -> Option<PeerFault> {
    let mut faults = Faults::default();
    let log =
        |(sa, text): &(u64, &str)| faults.log(LogLine { ike_sa: Some(*sa), text }, ends().as_ref(), NOW);
    lines.iter().map(log).last().flatten()
}

fn last(lines: &[&str]) -> Option<PeerFault> {
    last_of(&lines.iter().map(|line| (1, *line)).collect::<Vec<_>>())
}

const CAME: &str = "parsed IKE_AUTH request 1 [ IDi IDr AUTH SA TSi TSr ]";
const REFUSED: &str = "generating IKE_AUTH response 1 [ N(AUTH_FAILED) ]";

const MISMATCH: &str = "tried 2 shared keys for '198.51.100.1' - 'site.example', but MAC mismatched";

#[test]
fn a_cause_belongs_to_its_own_ike_sa_and_explains_one_failure() {
    assert_eq!(last(&[CAME, MISMATCH]), None);
    assert_eq!(last(&[CAME, MISMATCH, REFUSED]).unwrap().reason, ConnectionFault::PreSharedKeysDiffer);
    let other = last_of(&[(1, MISMATCH), (2, CAME), (2, REFUSED)]).unwrap();
    assert_eq!(other.reason, ConnectionFault::NegotiationFailed);
    assert_eq!(last(&[CAME, MISMATCH, REFUSED, REFUSED]).unwrap().reason, ConnectionFault::NegotiationFailed);
    assert_eq!(last_of(&[(1, CAME), (1, REFUSED), (2, CAME), (2, MISMATCH)]), None);
}

#[test]
fn a_cause_counts_for_a_bounded_time() {
    let mut faults = Faults::default();
    let mut log = |second: i64, text| {
        let now = Timestamp::from_second(second).unwrap();
        faults.log(LogLine { ike_sa: Some(1), text }, ends().as_ref(), now).map(|fault| fault.reason)
    };
    assert_eq!(log(0, REFUSED), Some(ConnectionFault::NegotiationFailed));
    assert_eq!(log(5, MISMATCH), Some(ConnectionFault::PreSharedKeysDiffer));
    assert_eq!(log(20, REFUSED), Some(ConnectionFault::NegotiationFailed));
    assert_eq!(log(26, MISMATCH), None);
}

#[test]
fn memory_is_bounded() {
    let mut faults = Faults::default();
    for sa in 0..1000 {
        faults.log(LogLine { ike_sa: Some(sa), text: MISMATCH }, ends().as_ref(), NOW);
    }
    assert!(faults.0.len() <= REMEMBERED);
}

#[test]
fn a_line_that_is_quoted_has_no_control_character() {
    let fault = last(&["unable to install \u{1b}[2J in kernel"]).unwrap();
    assert!(fault.cause.ends_with("unable to install [2J in kernel"), "{}", fault.cause);
}

/// What charon logs of one attempt, in order, and the reason that this has.
const ATTEMPTS: [(&[&str], ConnectionFault); 9] = [
    (&[CAME, MISMATCH, REFUSED], ConnectionFault::PreSharedKeysDiffer),
    (
        &[
            CAME,
            "looking for peer configs matching 169.254.1.2[198.51.100.1]...203.0.0.2[site.example]",
            "selected peer config 'tunnel'",
            MISMATCH,
            REFUSED,
        ],
        ConnectionFault::PreSharedKeysDiffer,
    ),
    (
        &[
            CAME,
            "looking for peer configs matching 169.254.1.2[198.51.100.1]...203.0.0.2[office.example]",
            "selected peer config 'identity-fqdn'",
            MISMATCH,
            REFUSED,
        ],
        ConnectionFault::PeerIdentityDiffers,
    ),
    (
        &[
            CAME,
            "looking for peer configs matching 169.254.1.2[gw.example]...203.0.0.2[site.example]",
            "no matching peer config found",
            REFUSED,
        ],
        ConnectionFault::PeerIdentityDiffers,
    ),
    (
        &[CAME, "peer requested EAP, config unacceptable", REFUSED],
        ConnectionFault::AuthenticationMethodDiffers,
    ),
    (
        &[
            CAME,
            "peer requested virtual IP %any",
            "generating IKE_AUTH response 1 [ IDr AUTH N(INT_ADDR_FAIL) ]",
        ],
        ConnectionFault::VirtualIpRequested,
    ),
    (
        &[
            CAME,
            "traffic selectors 100.64.0.1/32 === 10.1.0.0/16 unacceptable",
            "generating IKE_AUTH response 1 [ N(TS_UNACCEPT) ]",
        ],
        ConnectionFault::TrafficSelectorsDiffer,
    ),
    (
        &[
            "parsed CREATE_CHILD_SA request 5 [ N(REKEY_SA) SA No TSi TSr ]",
            "received proposals: ESP:AES_GCM_16_256/NO_EXT_SEQ",
            "configured proposals: ESP:AES_GCM_16_256/ECP_384/NO_EXT_SEQ",
            "generating CREATE_CHILD_SA response 5 [ N(NO_PROP) ]",
        ],
        ConnectionFault::NoCommonEspProposal,
    ),
    (
        &[
            CAME,
            "unable to install IPsec policies (SPD) in kernel",
            "generating IKE_AUTH response 1 [ N(TS_UNACCEPT) ]",
        ],
        ConnectionFault::ChildSaNotInstalled,
    ),
];

/// The last fault that each of the IKE SAs reports.
fn reported(lines: &[(u64, &str)]) -> Vec<(u64, PeerFault)> {
    let mut faults = Faults::default();
    let mut last = std::collections::BTreeMap::new();
    for (sa, text) in lines {
        if let Some(fault) = faults.log(LogLine { ike_sa: Some(*sa), text }, ends().as_ref(), NOW) {
            last.insert(*sa, fault);
        }
    }
    last.into_iter().collect()
}

#[test]
fn each_attempt_has_its_reason_in_order() {
    for (lines, reason) in ATTEMPTS {
        let lines: Vec<_> = lines.iter().map(|line| (1, *line)).collect();
        assert_eq!(reported(&lines).last().map(|(_, fault)| fault.reason), Some(reason), "{lines:?}");
    }
}

/// Lines, each with its IKE SA.
type Lines = Vec<(u64, &'static str)>;

/// Attempts of a peer, and an order in which their lines arrive.
fn out_of_order() -> impl Strategy<Value = (Lines, Lines)> {
    let attempts = proptest::collection::vec(proptest::sample::select(&ATTEMPTS[..]), 1..5);
    attempts.prop_flat_map(|attempts| {
        let lines: Lines =
            (0..).zip(attempts).flat_map(|(sa, (lines, _))| lines.iter().map(move |l| (sa, *l))).collect();
        (Just(lines.clone()), Just(lines).prop_shuffle())
    })
}

#[test]
fn only_the_peer_refuses_the_gateway() {
    assert_eq!(last(&[REFUSED]).unwrap().reason, ConnectionFault::NegotiationFailed);
    for refusal in
        ["parsed INFORMATIONAL request 2 [ N(AUTH_FAILED) ]", "parsed IKE_AUTH response 1 [ N(AUTH_FAILED) ]"]
    {
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
    let many = format!("received proposals: {}", ["ESP:AES_CBC_128/HMAC_SHA1_96/NO_EXT_SEQ"; 9].join(", "));
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
            faults.log(LogLine { ike_sa: None, text: &line }, ends().as_ref(), NOW);
        }
    }

    /// The threads of charon that send lines overtake each other: each may be the last to arrive.
    #[test]
    fn a_cause_is_not_lost_to_the_order_of_lines((in_order, arrived) in out_of_order()) {
        prop_assert_eq!(reported(&arrived), reported(&in_order));
    }
}
