//! Whether IKE passes between the ends in both directions, as an attempt to connect shows it. Pure: time is an argument.
//!
//! The first exchange, IKE_SA_INIT, uses UDP 500. The next one, IKE_AUTH, uses UDP 4500 (RFC 7296 §2.23), which some networks
//! drop.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use wicketgate_model::ConnectionFault;

use super::LogLine;
use crate::ipsec::strongswan::peer_fault::PeerFault;

/// How long after the answer to IKE_SA_INIT the peer has sent IKE_AUTH: with one lost packet, which is sent again after two to four
/// seconds by most devices.
const AUTHENTICATES_WITHIN: SignedDuration = SignedDuration::from_millis(4500);

/// The repetition of IKE_AUTH without an answer after which the path is blamed: two seconds. Other messages of an IKE SA that the
/// peer has begun, or that a rekey made, have this number too.
const REPEATED_IKE_AUTH: &str = "retransmit 3 of request with message ID 1";

/// The repetition of IKE_SA_INIT without an answer after which the peer is said not to answer: 3.3 s. A slow device computes a key
/// exchange before its answer, in less.
const REPEATED_IKE_SA_INIT: &str = "retransmit 4 of request with message ID 0";

const NOT_ON_4500: &str = "the peer answers IKE on UDP 500 and not on UDP 4500: UDP 4500 is dropped on the way, or the device refuses \
     without an answer";

/// How often the peer repeats a message before its answer counts as lost.
const REPEATED_BY_PEER: u32 = 2;

/// IKE SAs that are remembered. A peer negotiates one or two at a time.
const REMEMBERED: usize = 16;

/// The attempts of the peer and of the gateway, by the unique ids of their IKE SAs.
#[derive(Debug, Default)]
pub(in crate::ipsec::strongswan) struct Passages(BTreeMap<u64, Passage>);

#[derive(Debug, Default)]
struct Passage {
    /// When the gateway answered IKE_SA_INIT.
    answered: Option<Timestamp>,
    /// The peer has sent IKE_AUTH, or repeats IKE_SA_INIT.
    has_gone_on: bool,
    repeated: u32,
    /// The gateway has sent IKE_SA_INIT, and has no answer to it.
    is_calling: bool,
    /// The gateway has sent IKE_AUTH, and has no answer to it.
    is_asking: bool,
}

impl Passages {
    /// Processes a log line. The order of the lines does not matter.
    pub(in crate::ipsec::strongswan) fn log(
        &mut self,
        line: LogLine<'_>,
        now: Timestamp,
    ) -> Option<PeerFault> {
        let (sa, text) = (line.ike_sa?, line.text);
        if text == REPEATED_IKE_AUTH {
            return self.0.get(&sa).filter(|passage| passage.is_asking).map(|_| blocked(NOT_ON_4500));
        }
        if text == REPEATED_IKE_SA_INIT {
            let silent = self.0.get(&sa).filter(|passage| passage.is_calling);
            return silent.map(|_| PeerFault::new(ConnectionFault::PeerDoesNotAnswer, NO_ANSWER));
        }
        let is_call = text.starts_with("generating IKE_SA_INIT request 0 ");
        let is_heard = text.starts_with("parsed IKE_SA_INIT response 0 ");
        let is_answer = text.starts_with("generating IKE_SA_INIT response ") && !text.contains("[ N(");
        let is_repeated = text.starts_with("received retransmit of request with ID 0");
        let is_authentication = text.starts_with("parsed IKE_AUTH request ");
        let is_asking = text.starts_with("generating IKE_AUTH request 1 ");
        let is_told = text.starts_with("parsed IKE_AUTH response 1 ");
        let is_own = is_call || is_heard || is_asking || is_told;
        if !(is_own || is_answer || is_repeated || is_authentication) {
            return None;
        }
        while self.0.len() >= REMEMBERED && !self.0.contains_key(&sa) {
            self.0.pop_first();
        }
        let passage = self.0.entry(sa).or_default();
        if is_answer {
            passage.answered = Some(now);
        } else if is_own {
            (passage.is_calling, passage.is_asking) = (is_call, is_asking);
        } else {
            passage.has_gone_on = true;
            passage.repeated += u32::from(is_repeated);
        }
        (is_repeated && passage.repeated >= REPEATED_BY_PEER).then(|| {
            let cause = "the peer's IKE messages on UDP 500 arrive, and the gateway's answers do not reach it: it repeats them";
            PeerFault::new(ConnectionFault::AnswersLost, cause)
        })
    }

    /// When the next attempt of the peer will be overdue.
    pub(in crate::ipsec::strongswan) fn due(&self, now: Timestamp) -> Option<SignedDuration> {
        let waiting = self.0.values().filter(|passage| !passage.has_gone_on);
        let left =
            waiting.filter_map(|passage| Some(AUTHENTICATES_WITHIN - now.duration_since(passage.answered?)));
        left.filter(SignedDuration::is_positive).min()
    }

    /// The fault of an IKE SA that the peer has begun and that is still being negotiated.
    pub(in crate::ipsec::strongswan) fn overdue(&mut self, sa: u64, now: Timestamp) -> Option<PeerFault> {
        let passage = self.0.get_mut(&sa)?;
        let is_late = passage.answered.is_some_and(|at| now.duration_since(at) >= AUTHENTICATES_WITHIN);
        if passage.has_gone_on || !is_late {
            return None;
        }
        // Reported once.
        passage.has_gone_on = true;
        Some(blocked(
            "UDP 500 arrives from the peer, UDP 4500 does not: its IKE_SA_INIT was answered, and no IKE_AUTH came",
        ))
    }
}

/// What charon's last line about such an attempt says, too.
pub(super) const NO_ANSWER: &str = "the peer does not answer";

fn blocked(cause: &str) -> PeerFault {
    PeerFault::new(ConnectionFault::NatTraversalBlocked, cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INIT: &str = "generating IKE_SA_INIT response 0 [ SA KE No N(NATD_S_IP) N(NATD_D_IP) ]";
    const AUTH: &str = "parsed IKE_AUTH request 1 [ IDi AUTH SA TSi TSr ]";
    const REPEATED: &str = "received retransmit of request with ID 0, retransmitting response";

    fn at(millisecond: i64) -> Timestamp {
        Timestamp::from_millisecond(millisecond).unwrap()
    }

    /// The reasons after these lines and a look at this time.
    fn reasons(lines: &[&str], looked_at: i64) -> Vec<ConnectionFault> {
        let mut passages = Passages::default();
        let line = |text| LogLine { ike_sa: Some(1), text };
        let mut faults: Vec<_> = lines.iter().filter_map(|text| passages.log(line(text), at(0))).collect();
        faults.extend(passages.overdue(1, at(looked_at)));
        assert_eq!(passages.overdue(1, at(looked_at)), None);
        faults.into_iter().map(|fault| fault.reason).collect()
    }

    #[test]
    fn a_peer_whose_second_message_does_not_arrive_is_behind_a_filter() {
        assert_eq!(reasons(&[INIT], 4499), []);
        assert_eq!(reasons(&[INIT], 4500), [ConnectionFault::NatTraversalBlocked]);
        for lines in [[INIT, AUTH], [AUTH, INIT]] {
            assert_eq!(reasons(&lines, 4500), []);
        }
        // One packet was lost.
        assert_eq!(reasons(&[INIT, REPEATED], 4500), []);
        assert_eq!(reasons(&[INIT, REPEATED, REPEATED], 4500), [ConnectionFault::AnswersLost]);
        assert_eq!(reasons(&["generating IKE_SA_INIT response 0 [ N(NO_PROP) ]"], 4500), []);
    }

    #[test]
    fn only_the_gateways_own_ike_auth_without_an_answer_blames_the_path() {
        const ASKED: &str = "generating IKE_AUTH request 1 [ IDi AUTH SA TSi TSr ]";
        const TOLD: &str = "parsed IKE_AUTH response 1 [ IDr AUTH SA TSi TSr ]";
        let repeated = |id: u32| format!("retransmit 3 of request with message ID {id}");
        assert_eq!(reasons(&[ASKED, &repeated(1)], 0), [ConnectionFault::NatTraversalBlocked]);
        for id in [0, 10, 12, 100] {
            assert_eq!(reasons(&[ASKED, &repeated(id)], 0), [], "{id}");
        }
        // Another request with the same number, of an IKE SA that was established.
        for lines in [&[][..], &[AUTH], &[ASKED, TOLD]] {
            assert_eq!(reasons(&[lines, &[&repeated(1)]].concat(), 0), [], "{lines:?}");
        }
    }

    #[test]
    fn a_peer_that_does_not_answer_the_gateways_call_is_silent() {
        const CALLED: &str = "generating IKE_SA_INIT request 0 [ SA KE No N(NATD_S_IP) N(NATD_D_IP) ]";
        const HEARD: &str = "parsed IKE_SA_INIT response 0 [ SA KE No N(NATD_S_IP) N(NATD_D_IP) ]";
        let repeated = |times: u32| format!("retransmit {times} of request with message ID 0");
        assert_eq!(reasons(&[CALLED, &repeated(4)], 0), [ConnectionFault::PeerDoesNotAnswer]);
        assert_eq!(reasons(&[CALLED, &repeated(3)], 0), []);
        // The first request of the gateway in an IKE SA of the peer, and one after the answer.
        for lines in [&[][..], &[AUTH], &[CALLED, HEARD]] {
            assert_eq!(reasons(&[lines, &[&repeated(4)]].concat(), 0), [], "{lines:?}");
        }
    }

    #[test]
    fn the_next_attempt_that_will_be_overdue_is_known() {
        let mut passages = Passages::default();
        assert_eq!(passages.due(at(0)), None);
        passages.log(LogLine { ike_sa: Some(1), text: INIT }, at(0));
        passages.log(LogLine { ike_sa: Some(2), text: INIT }, at(1000));
        let due = |passages: &Passages, now| passages.due(at(now)).map(|left| left.as_millis());
        assert_eq!(
            [due(&passages, 0), due(&passages, 4500), due(&passages, 5500)],
            [Some(4500), Some(1000), None]
        );
        passages.log(LogLine { ike_sa: Some(2), text: AUTH }, at(1000));
        assert_eq!(due(&passages, 4500), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut passages = Passages::default();
        for sa in 0..1000 {
            passages.log(LogLine { ike_sa: Some(sa), text: INIT }, at(0));
        }
        assert!(passages.0.len() <= REMEMBERED && passages.overdue(999, at(9000)).is_some());
    }
}
