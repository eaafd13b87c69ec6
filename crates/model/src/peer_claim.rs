//! Which Frontdoor has the public address of a peer, of which a gateway can serve one.
//!
//! The rule: a Frontdoor keeps an address from which an IKE connection of its own has come up within [`PROOF_LASTS`]. Without
//! such a proof, it gives way to another one that claims the address, once it has had it for more than [`UNPROVED_LASTS`]; and at
//! once to one that has such a proof, and has let go of the address for a moment.
//! The operator decides otherwise. Within a Frontdoor, and while a tunnel is being deleted, an address is taken.

use jiff::{SignedDuration, Timestamp};

/// A site that is away for longer has another line, or none.
pub const PROOF_LASTS: SignedDuration = SignedDuration::from_hours(30 * 24);
/// For the engineer of a site to connect it the first time.
pub const UNPROVED_LASTS: SignedDuration = SignedDuration::from_hours(24);

/// How a Frontdoor has an address, or had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerHold {
    /// The beginning, over gaps of at most [`UNPROVED_LASTS`].
    pub since: Timestamp,
    /// When a connection from the address was last up.
    pub proved_at: Option<Timestamp>,
}

/// Who claims an address that a tunnel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerClaim {
    /// The Frontdoor of that tunnel.
    SameFrontdoor,
    OtherFrontdoor,
    /// One from whose address a connection of its own came up within [`PROOF_LASTS`]: it has only let go of it.
    ProvedFrontdoor,
    /// For another Frontdoor.
    Operator,
}

impl PeerHold {
    /// The hold that begins at `now`; `earlier` is that of the same Frontdoor, and when it was given up. A Frontdoor that
    /// gives an address up and takes it again at once does not begin again.
    pub fn begun(earlier: Option<(Self, Timestamp)>, now: Timestamp) -> Self {
        match earlier {
            Some((hold, until)) if now.duration_since(until) <= UNPROVED_LASTS => hold,
            Some((hold, _)) => Self { since: now, ..hold },
            None => Self { since: now, proved_at: None },
        }
    }

    pub fn is_proved(self, now: Timestamp) -> bool {
        self.proved_at.is_some_and(|at| now.duration_since(at) <= PROOF_LASTS)
    }

    /// Whether the tunnel that has the address gives way to the claim. `is_deleting`: a gateway has yet to remove it.
    pub fn gives_way(self, claim: PeerClaim, is_deleting: bool, now: Timestamp) -> bool {
        let is_proved = self.is_proved(now);
        let had_its_time = now.duration_since(self.since) > UNPROVED_LASTS;
        !is_deleting
            && match claim {
                PeerClaim::SameFrontdoor => false,
                PeerClaim::OtherFrontdoor => had_its_time && !is_proved,
                PeerClaim::ProvedFrontdoor => !is_proved,
                PeerClaim::Operator => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, option, prelude::*};

    const HOUR: i64 = 3600;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    proptest! {
        #[test]
        fn a_proof_protects_and_an_old_hold_without_one_gives_way(
            since in 0..100 * 24 * HOUR,
            proved_at in option::of(0..100 * 24 * HOUR),
            now in 0..100 * 24 * HOUR,
        ) {
            let hold = PeerHold { since: at(since), proved_at: proved_at.map(at) };
            let gives = |claim, is_deleting| hold.gives_way(claim, is_deleting, at(now));
            let proof = proved_at.filter(|proved| *proved >= now - 30 * 24 * HOUR);
            let is_long = since < now - 24 * HOUR;
            prop_assert_eq!(gives(PeerClaim::OtherFrontdoor, false), proof.is_none() && is_long);
            prop_assert!(gives(PeerClaim::Operator, false));
            prop_assert!(!gives(PeerClaim::SameFrontdoor, false));
            prop_assert_eq!(gives(PeerClaim::ProvedFrontdoor, false), proof.is_none());
            for claim in [
                PeerClaim::SameFrontdoor,
                PeerClaim::OtherFrontdoor,
                PeerClaim::ProvedFrontdoor,
                PeerClaim::Operator,
            ] {
                prop_assert!(!gives(claim, true));
            }
        }

        /// One Frontdoor gives the address up and takes it again between the claims of another, and never proves it.
        #[test]
        fn a_squatter_has_an_address_for_a_day_at_most(retakes in vec(any::<bool>(), 30)) {
            let mut hold = PeerHold::begun(None, at(0));
            for (hour, retakes) in (1..).zip(retakes) {
                let now = hour * HOUR;
                if hold.gives_way(PeerClaim::OtherFrontdoor, false, at(now)) {
                    prop_assert_eq!(hour, 25);
                    return Ok(());
                }
                if retakes {
                    hold = PeerHold::begun(Some((hold, at(now + 60))), at(now + 61));
                }
            }
            prop_assert!(false, "it never gives way");
        }

        /// A connection that comes up once in 30 days keeps the address for ever.
        #[test]
        fn a_site_that_connects_keeps_its_address(pauses in vec(0..30 * 24 * HOUR, 1..50)) {
            let mut now = 0;
            let mut hold = PeerHold { since: at(0), proved_at: Some(at(0)) };
            for pause in pauses {
                now += pause;
                prop_assert!(!hold.gives_way(PeerClaim::OtherFrontdoor, false, at(now)));
                hold.proved_at = Some(at(now));
            }
        }
    }

    #[test]
    fn who_takes_an_address_again_after_a_day_begins_again() {
        let proved_at = Some(at(7));
        let hold = PeerHold { since: at(0), proved_at };
        let begun = |until, now| PeerHold::begun(Some((hold, at(until))), at(now));
        assert_eq!(begun(100, 100 + 24 * HOUR), hold);
        let later = 101 + 24 * HOUR;
        assert_eq!(begun(100, later), PeerHold { since: at(later), proved_at });
        assert_eq!(PeerHold::begun(None, at(5)), PeerHold { since: at(5), proved_at: None });
    }
}
