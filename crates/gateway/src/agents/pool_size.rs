//! How many carriers an agent keeps parked: the difference between the fewest and the most streams that it had at a
//! time lately.
//!
//! Streams that stay open for hours have their carriers and need no parked ones. Invariant: pure, and always between
//! [`LEAST`] and [`MOST`].

/// A first burst waits for no handshake.
pub(super) const LEAST: u16 = 8;
/// Each is a socket and some memory at both ends.
pub(super) const MOST: u16 = 512;
/// Seconds for which a peak counts.
const WINDOW: usize = 30;

#[derive(Debug, Default)]
pub(super) struct PoolSize {
    /// The fewest and the most streams of each second.
    seconds: [(usize, usize); WINDOW],
    next: usize,
}

impl PoolSize {
    /// Records the fewest and the most concurrent streams of another second.
    pub(super) fn second(&mut self, fewest: usize, most: usize) {
        self.seconds[self.next] = (fewest, most);
        self.next = (self.next + 1) % WINDOW;
    }

    /// How many carriers the agent should have parked, besides those in use.
    pub(super) fn want(&self) -> u16 {
        let fewest = self.seconds.iter().map(|s| s.0).min().unwrap_or_default();
        let most = self.seconds.iter().map(|s| s.1).max().unwrap_or_default();
        u16::try_from(most.saturating_sub(fewest)).unwrap_or(MOST).clamp(LEAST, MOST)
    }

    /// How many may stay parked: twice [`Self::want`], which is what a peak leaves when it ends.
    pub(super) fn keep(&self) -> usize {
        2 * usize::from(self.want())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_follows_recent_peaks() {
        let mut pool = PoolSize::default();
        assert_eq!((pool.want(), pool.keep()), (LEAST, 16));
        pool.second(0, 50);
        assert_eq!((pool.want(), pool.keep()), (50, 100));
        for _ in 0..WINDOW - 1 {
            pool.second(10, 20);
            assert_eq!(pool.want(), 50);
        }
        pool.second(10, 20);
        assert_eq!(pool.want(), 10);
        // Streams that stay open need no parked carriers.
        for _ in 0..WINDOW {
            pool.second(10_000, 10_000);
        }
        assert_eq!(pool.want(), LEAST);
        pool.second(0, 100_000);
        assert_eq!(pool.want(), MOST);
    }
}
