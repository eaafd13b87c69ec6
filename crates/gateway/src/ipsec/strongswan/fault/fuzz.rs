//! What a fuzz target runs: lines of charon's log.

use super::*;

/// Lines, each of which begins with a digit: its IKE SA. What a fault says has no control character and a limit, and what is
/// remembered is bounded.
pub fn charon_fault(lines: &[u8]) {
    let lines = String::from_utf8_lossy(lines);
    let ends = ends();
    assert!(ends.is_some());
    let mut faults = Faults::default();
    for line in lines.split('\n') {
        let ike_sa = line.chars().next().and_then(|first| first.to_digit(10)).map(u64::from);
        let text = if ike_sa.is_some() { &line[1..] } else { line };
        peer_refuses(text);
        let fault = faults.log(LogLine { ike_sa, text }, ends.as_ref(), Timestamp::UNIX_EPOCH);
        assert!(faults.0.len() <= REMEMBERED);
        if let Some(PeerFault { cause, cure, .. }) = fault {
            assert!(
                !cause.contains(char::is_control) && !cure.contains(char::is_control),
                "{cause:?} {cure:?}"
            );
            assert!(cause.len() + cure.len() <= 4000, "{cause:?} {cure:?}");
        }
    }
}

/// A tunnel's.
pub(super) fn ends() -> Option<Ends> {
    Some(Ends {
        gateway_id: "198.51.100.1".to_owned(),
        peer_id: "site.example".parse().ok()?,
        load_balancer: "100.64.0.1".parse().ok()?,
        peer_cidr: "10.0.0.0/16".parse().ok()?,
    })
}
