//! A peer that deletes each CHILD SA at once, since its own kernel does not take it. Pure: time is an argument.

use jiff::{SignedDuration, Timestamp};
use wicketgate_model::ConnectionFault;

use crate::ipsec::strongswan::peer_fault::PeerFault;

/// A CHILD SA that a person or a device ends on purpose has lasted longer, and so has one that a rekey replaces.
const AT_ONCE: SignedDuration = SignedDuration::from_secs(2);

/// The last events of CHILD SAs in charon's log, whose lines arrive in any order.
#[derive(Debug, Default)]
pub(super) struct Withdrawal {
    /// The SPI of the newest one at the peer, and when it was established.
    established: Option<(String, Timestamp)>,
    /// The SPI in the last DELETE of the peer.
    deleted: Option<(String, Timestamp)>,
    /// When the gateway last asked the peer to delete one: the answer has the peer's SPI.
    asked: Option<Timestamp>,
}

impl Withdrawal {
    /// Processes a log line.
    pub(super) fn log(&mut self, line: &str, now: Timestamp) -> Option<PeerFault> {
        if line.starts_with("generating INFORMATIONAL request ") && line.ends_with("[ D ]") {
            self.asked = Some(now);
        } else if let Some((_, spis)) = line.split_once(" established with SPIs ") {
            let spi = spis.split(' ').nth(1)?.strip_suffix("_o")?;
            self.established = Some((spi.to_owned(), now));
        } else if let Some(spi) = line.strip_prefix("received DELETE for ESP CHILD_SA with SPI ") {
            self.deleted = Some((spi.to_owned(), now));
        } else {
            return None;
        }
        let (established, deleted) = (self.established.as_ref()?, self.deleted.as_ref()?);
        let apart = |a: Timestamp, b: Timestamp| a.duration_since(b).abs();
        let is_withdrawn = established.0 == deleted.0
            && apart(established.1, deleted.1) <= AT_ONCE
            && self.asked.is_none_or(|asked| apart(asked, deleted.1) > AT_ONCE);
        if !is_withdrawn {
            return None;
        }
        (self.established, self.deleted) = (None, None);
        let cause = "the peer deleted the CHILD SA as soon as it was established: its device does not use it";
        Some(PeerFault::new(ConnectionFault::ChildSaWithdrawn, cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn established(n: u32) -> String {
        format!(
            "CHILD_SA site{{{n}}} established with SPIs a{n}_i b{n}_o and TS 100.64.0.1/32 === 10.0.0.0/16"
        )
    }

    fn deleted(n: u32) -> String {
        format!("received DELETE for ESP CHILD_SA with SPI b{n}")
    }

    #[test]
    fn only_the_newest_sa_counts_and_only_at_once() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut withdrawal = Withdrawal::default();
        let mut log = |second: i64, line: &str| withdrawal.log(line, at(second)).is_some();
        assert!(!log(0, &established(1)) && log(1, &deleted(1)) && !log(1, &deleted(1)));
        // The lines arrive in the other order.
        assert!(!log(5, &deleted(7)) && log(5, &established(7)));
        // A rekey.
        assert!(!log(10, &established(2)) && !log(10, &established(3)) && !log(10, &deleted(2)));
        // By the gateway, or later.
        assert!(!log(11, "generating INFORMATIONAL request 1 [ D ]") && !log(11, &deleted(3)));
        assert!(!log(20, &established(4)) && !log(23, &deleted(4)));
    }
}
