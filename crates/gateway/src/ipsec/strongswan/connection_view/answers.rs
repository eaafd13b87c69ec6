//! Whether a peer that is up still answers. Pure: time is an argument.
//!
//! charon asks a peer from which nothing arrives, and repeats the question: see `strongswan.conf`. One lost packet casts no
//! doubt, and any packet of the peer ends it.

use jiff::Timestamp;
use wicketgate_model::{ConnectionDoubt, ConnectionWarning};

use crate::ipsec::strongswan::fault::LogLine;

/// Repetitions without an answer after which the peer is suspected, one second after the question, and after which it is silent,
/// two seconds after it.
const SUSPECTED: u32 = 2;
const SILENT: u32 = 3;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Answers {
    doubt: Option<ConnectionWarning>,
    /// The bytes from the peer when they were first read after the doubt began.
    bytes_in: Option<u64>,
}

impl Answers {
    /// Processes a line of the IKE SA that is up. Returns whether the doubt changed.
    pub(super) fn log(&mut self, line: LogLine<'_>, now: Timestamp) -> bool {
        if line.text.starts_with("parsed ") {
            return self.end();
        }
        let Some(repeated) = repetition(line.text) else { return false };
        let (reason, message) = match repeated {
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
        self.doubt = Some(ConnectionWarning { reason, message: message.to_owned(), since: now });
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

/// How often a message of the gateway was repeated: `retransmit 2 of request with message ID 5`.
pub(super) fn repetition(line: &str) -> Option<u32> {
    let (times, rest) = line.strip_prefix("retransmit ")?.split_once(' ')?;
    times.parse().ok().filter(|_| rest.starts_with("of request "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log(answers: &mut Answers, text: &str) -> bool {
        answers.log(LogLine { ike_sa: Some(1), text }, Timestamp::UNIX_EPOCH)
    }

    fn repeat(times: u32) -> String {
        format!("retransmit {times} of request with message ID 5")
    }

    fn reason(answers: &Answers) -> Option<ConnectionDoubt> {
        answers.warning().map(|warning| warning.reason)
    }

    #[test]
    fn a_silent_peer_is_suspected_first_and_a_packet_ends_it() {
        let mut answers = Answers::default();
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

    proptest! {
        /// On a lossy line, each question is answered after at most one repetition.
        #[test]
        fn single_losses_cast_no_doubt(lost in proptest::collection::vec(any::<bool>(), 0..50)) {
            let mut answers = Answers::default();
            for is_lost in lost {
                if is_lost {
                    log(&mut answers, &repeat(1));
                }
                prop_assert_eq!(reason(&answers), None);
                log(&mut answers, "parsed INFORMATIONAL response 5 [ ]");
            }
        }
    }
}
