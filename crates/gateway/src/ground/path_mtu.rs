//! The path MTU to a peer. Pure: time is an argument.
//!
//! The kernel forgets a path MTU after ten minutes and learns it again from a packet that was too large. Following it
//! would give the connections of these moments segments that are fragmented for as long as they last. So a learned
//! value is kept while the connection is up, for some hours.

use std::time::Duration;

use tokio::time::Instant;

use super::link::MTU;

/// After this time larger packets are tried again: a path seldom improves while a connection is up.
const KEPT: Duration = Duration::from_secs(8 * 60 * 60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PathMtu {
    /// The learned MTU, and when it was last confirmed.
    learned: Option<(u32, Instant)>,
}

impl PathMtu {
    /// The largest packet that reaches the peer whole, as far as known.
    pub(super) fn bears(&self) -> u32 {
        self.learned.map_or(MTU, |(mtu, _)| mtu)
    }

    /// Processes the kernel's current path MTU. Returns whether the value to use changed.
    pub(super) fn look(&mut self, mtu: u32, is_up: bool, now: Instant) -> bool {
        let before = self.bears();
        let is_kept = |at| is_up && now.duration_since(at) < KEPT;
        match self.learned {
            Some((learned, at)) if mtu > learned && is_kept(at) => {}
            _ => self.learned = (mtu < MTU).then_some((mtu, now)),
        }
        self.bears() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learned_mtu_is_kept_after_the_kernel_forgets_it() {
        let mut path = PathMtu::default();
        let start = Instant::now();
        let mut look = |mtu, is_up, after| (path.look(mtu, is_up, start + after), path.bears());
        let minutes = |n: u64| Duration::from_secs(n * 60);
        assert_eq!(look(MTU, true, minutes(0)), (false, MTU));
        assert_eq!(look(1400, true, minutes(1)), (true, 1400));
        assert_eq!(look(MTU, true, minutes(11)), (false, 1400));
        // A packet was too large again.
        assert_eq!(look(1400, true, minutes(12)), (false, 1400));
        assert_eq!(look(1300, true, minutes(13)), (true, 1300));
        assert_eq!(look(1400, true, minutes(24)), (false, 1300));
        assert_eq!(look(MTU, true, minutes(13) + KEPT - minutes(1)), (false, 1300));
        assert_eq!(look(MTU, true, minutes(13) + KEPT), (true, MTU));
        // A device that reconnects may use another path.
        assert_eq!(look(1400, true, minutes(600)), (true, 1400));
        assert_eq!(look(MTU, false, minutes(601)), (true, MTU));
    }
}
