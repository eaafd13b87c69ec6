//! A peer that deletes each CHILD SA at once, since its own kernel does not take it. Pure: time is an argument.

use jiff::{SignedDuration, Timestamp};
use wicketgate_model::ConnectionFault;

use crate::ipsec::strongswan::peer_fault::PeerFault;

/// A CHILD SA that a person or a device ends on purpose has lasted longer, and so has one that a rekey replaces.
const AT_ONCE: SignedDuration = SignedDuration::from_secs(2);

/// The last CHILD SA in charon's log.
#[derive(Debug, Default)]
pub(super) struct Withdrawal {
    /// `site{2}`, and when it was established.
    newest: Option<(String, Timestamp)>,
    /// The peer's message deletes a CHILD SA.
    is_deleting: bool,
}

impl Withdrawal {
    /// Processes a log line.
    pub(super) fn log(&mut self, line: &str, now: Timestamp) -> Option<PeerFault> {
        let name = |text: &str| text.split_once("CHILD_SA ")?.1.split(' ').next().map(str::to_owned);
        if line.starts_with("parsed ") {
            self.is_deleting = false;
        } else if line.contains(" established with SPIs ") {
            self.newest = name(line).map(|name| (name, now));
        } else if line.starts_with("received DELETE for ESP CHILD_SA ") {
            self.is_deleting = true;
        } else if self.is_deleting && line.starts_with("closing CHILD_SA ") {
            let closed = name(line);
            let (_, at) = self.newest.take_if(|(newest, _)| Some(&*newest) == closed.as_ref())?;
            let cause =
                "the peer deleted the CHILD SA as soon as it was established: its device does not use it";
            let is_at_once = now.duration_since(at) <= AT_ONCE;
            return is_at_once.then(|| PeerFault::new(ConnectionFault::ChildSaWithdrawn, cause));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_sa_counts_and_only_at_once() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut withdrawal = Withdrawal::default();
        let mut log = |second: i64, line: &str| withdrawal.log(line, at(second)).is_some();
        let established = |n| {
            format!(
                "CHILD_SA site{{{n}}} established with SPIs c1_i c2_o and TS 100.64.0.1/32 === 10.0.0.0/16"
            )
        };
        let closing = |n| {
            format!(
                "closing CHILD_SA site{{{n}}} with SPIs c1_i (0 bytes) c2_o (0 bytes) and TS 100.64.0.1/32"
            )
        };
        const DELETE: &str = "received DELETE for ESP CHILD_SA with SPI c2";
        assert!(!log(0, &established(1)) && !log(1, DELETE) && log(1, &closing(1)) && !log(1, &closing(1)));
        // A rekey.
        assert!(
            !log(10, &established(2))
                && !log(10, &established(3))
                && !log(10, DELETE)
                && !log(10, &closing(2))
        );
        // By the gateway, or later.
        assert!(!log(11, "parsed INFORMATIONAL response 1 [ ]") && !log(11, &closing(3)));
        assert!(!log(20, &established(4)) && !log(23, DELETE) && !log(23, &closing(4)));
    }
}
