//! How large packets to a peer may be. Pure: time is an argument.
//!
//! The kernel forgets after ten minutes what ICMP has taught it, and learns it again from a packet that was too large. Were
//! that followed, every connection of the moments in between would have segments that go in fragments for as long as it
//! lasts. So what is learned is kept while the connection is up, and for some hours.

use std::time::Duration;

use tokio::time::Instant;

use super::link::MTU;

/// After this long the larger packets are tried again: the way of a connection that is up seldom changes for the better.
const KEPT: Duration = Duration::from_secs(8 * 60 * 60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PathMtu {
    /// What was learned, and when it was last heard of.
    learned: Option<(u32, Instant)>,
}

impl PathMtu {
    /// The largest packet that comes to the peer whole, as far as it is known.
    pub(super) fn bears(&self) -> u32 {
        self.learned.map_or(MTU, |(mtu, _)| mtu)
    }

    /// The kernel was asked, and takes the path for one of packets of `mtu` bytes. Answers whether it bears others than before.
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
    fn what_was_learned_outlives_the_kernels_memory() {
        let mut path = PathMtu::default();
        let start = Instant::now();
        let mut look = |mtu, is_up, after| (path.look(mtu, is_up, start + after), path.bears());
        let minutes = |n: u64| Duration::from_secs(n * 60);
        assert_eq!(look(MTU, true, minutes(0)), (false, MTU));
        assert_eq!(look(1400, true, minutes(1)), (true, 1400));
        assert_eq!(look(MTU, true, minutes(11)), (false, 1400));
        // It was a packet too large again.
        assert_eq!(look(1400, true, minutes(12)), (false, 1400));
        assert_eq!(look(1300, true, minutes(13)), (true, 1300));
        assert_eq!(look(1400, true, minutes(24)), (false, 1300));
        assert_eq!(look(MTU, true, minutes(13) + KEPT - minutes(1)), (false, 1300));
        assert_eq!(look(MTU, true, minutes(13) + KEPT), (true, MTU));
        // A device that comes back may come another way.
        assert_eq!(look(1400, true, minutes(600)), (true, 1400));
        assert_eq!(look(MTU, false, minutes(601)), (true, MTU));
    }
}
