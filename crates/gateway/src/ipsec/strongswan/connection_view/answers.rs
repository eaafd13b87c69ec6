//! Whether a peer that is up still answers. Pure: time is an argument.
//!
//! charon asks a peer from which nothing arrives, and repeats the question: see `strongswan.conf`. One lost packet casts no
//! doubt, and any packet of the peer ends it. To the request of a rekey, a slow device answers late: it computes a key exchange.

use jiff::Timestamp;
use wicketgate_model::{ConnectionDoubt, ConnectionWarning};

use crate::ipsec::strongswan::fault::LogLine;

/// Repetitions without an answer after which the peer is suspected, one second after the question, and after which it is silent,
/// two seconds after it.
const SUSPECTED: u32 = 2;
const SILENT: u32 = 3;

/// So many more repetitions of another request than a question: then it is suspected after five seconds, and silent after eight.
const COMPUTES: u32 = 3;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Answers {
    doubt: Option<ConnectionWarning>,
    /// The last question: its IKE SA and its message ID.
    asked: Option<(Option<u64>, u32)>,
    /// The bytes from the peer when they were first read after the doubt began.
    bytes_in: Option<u64>,
}

impl Answers {
    /// Processes a line of the IKE SA that is up. Returns whether the doubt changed.
    pub(super) fn log(&mut self, line: LogLine<'_>, now: Timestamp) -> bool {
        if line.text.starts_with("parsed ") {
            return self.end();
        }
        if let Some(id) = question(line.text) {
            self.asked = Some((line.ike_sa, id));
        }
        let Some((repeated, id)) = repetition(line.text) else { return false };
        let is_question = self.asked == Some((line.ike_sa, id));
        let (reason, message) = match repeated.saturating_sub(if is_question { 0 } else { COMPUTES }) {
            SUSPECTED => {
                (ConnectionDoubt::PeerSuspected, "no answer from the peer for 3 s: the gateway asks it again")
            }
            SILENT.. => (
                ConnectionDoubt::PeerSilent,
                "no answer from the peer for 4 s, though it was asked four times: see that the site's device is up and that the \
                 line passes UDP 4500 in both directions; the gateway goes on asking, and calls it back",
            ),
            _ => return false,
        };
        if self.doubt.as_ref().is_some_and(|doubt| doubt.reason >= reason) {
            return false;
        }
        self.doubt = Some(ConnectionWarning::new(reason, message, now));
        true
    }

    /// Processes the counter of bytes from the peer, and whether the connection is up.
    pub(super) fn look(&mut self, bytes_in: u64, is_up: bool) {
        if !is_up || self.doubt.is_some() && bytes_in > *self.bytes_in.get_or_insert(bytes_in) {
            self.end();
        }
    }

    /// The peer has answered, or connects again. Returns whether this ends a doubt.
    pub(super) fn end(&mut self) -> bool {
        self.bytes_in = None;
        self.doubt.take().is_some()
    }

    pub(super) fn warning(&self) -> Option<&ConnectionWarning> {
        self.doubt.as_ref()
    }
}

/// The message ID of a question of dead peer detection, which is empty (RFC 7296 §2.4).
fn question(line: &str) -> Option<u32> {
    line.strip_prefix("generating INFORMATIONAL request ")?.strip_suffix(" [ ]")?.parse().ok()
}

/// How often which message of the gateway was repeated: `retransmit 2 of request with message ID 5`.
fn repetition(line: &str) -> Option<(u32, u32)> {
    let (times, id) = line.strip_prefix("retransmit ")?.split_once(" of request with message ID ")?;
    Some((times.parse().ok()?, id.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log(answers: &mut Answers, text: &str) -> bool {
        answers.log(LogLine { ike_sa: Some(1), text }, Timestamp::UNIX_EPOCH)
    }

    const ASKED: &str = "generating INFORMATIONAL request 5 [ ]";

    fn repeat(times: u32) -> String {
        format!("retransmit {times} of request with message ID 5")
    }

    fn reason(answers: &Answers) -> Option<ConnectionDoubt> {
        answers.warning().map(|warning| warning.reason)
    }

    #[test]
    fn a_silent_peer_is_suspected_first_and_a_packet_ends_it() {
        let mut answers = Answers::default();
        assert!(!log(&mut answers, ASKED));
        assert!(!log(&mut answers, &repeat(1)) && log(&mut answers, &repeat(2)));
        assert_eq!(reason(&answers), Some(ConnectionDoubt::PeerSuspected));
        assert!(log(&mut answers, &repeat(3)) && !log(&mut answers, &repeat(4)));
        assert_eq!(reason(&answers), Some(ConnectionDoubt::PeerSilent));
        assert!(log(&mut answers, "parsed INFORMATIONAL response 5 [ ]"));
        assert_eq!(reason(&answers), None);
        // The counter may not have been read for long: only its growth since the doubt counts.
        log(&mut answers, &repeat(2));
        answers.look(100, true);
        answers.look(100, true);
        assert!(answers.warning().is_some());
        answers.look(101, true);
        assert_eq!(reason(&answers), None);
    }

    #[test]
    fn a_device_that_computes_the_key_of_a_rekey_is_not_silent() {
        for asked in ["generating CREATE_CHILD_SA request 5 [ N(REKEY_SA) SA No KE TSi TSr ]", "other"] {
            let mut answers = Answers::default();
            log(&mut answers, "generating INFORMATIONAL request 4 [ ]");
            log(&mut answers, "parsed INFORMATIONAL response 4 [ ]");
            log(&mut answers, asked);
            // The fourth one is sent after 3.3 s.
            assert!((1..=4).all(|times| !log(&mut answers, &repeat(times))), "{answers:?}");
            assert!(log(&mut answers, &repeat(5)) && log(&mut answers, &repeat(6)));
            assert_eq!(reason(&answers), Some(ConnectionDoubt::PeerSilent));
        }
    }

    proptest! {
        /// On a lossy line, each question is answered after at most one repetition.
        #[test]
        fn single_losses_cast_no_doubt(lost in proptest::collection::vec(any::<bool>(), 0..50)) {
            let mut answers = Answers::default();
            for is_lost in lost {
                log(&mut answers, ASKED);
                if is_lost {
                    log(&mut answers, &repeat(1));
                }
                prop_assert_eq!(reason(&answers), None);
                log(&mut answers, "parsed INFORMATIONAL response 5 [ ]");
            }
        }
    }
}
