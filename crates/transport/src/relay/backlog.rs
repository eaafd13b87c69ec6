//! Bounds the bytes that wait between a source and a destination that is slower.
//!
//! Without a bound, the kernel lets each buffer on the way grow to megabytes: on a slow line, all that follows on the connection
//! waits for seconds behind them, and a sender takes for delivered what nobody has read. Here a buffer keeps its first size until
//! the rate at which the destination acknowledges, and the round trip, show that this is too little. What the kernel takes for the
//! destination shows less: it takes much at first. A stream that stays faster than [`FAST`] is left to the kernel.
//!
//! Invariants: a buffer never shrinks, since the source may have sent already what would not fit; short streams cost nothing;
//! a stream is only left to the kernel after it was fast for [`SURE`]. So ordinary objects leave a carrier's
//! buffer small enough for the next stream.

use std::{os::fd::AsFd, time::Duration};
use wicketgate_system::socket_buffers::{
    acknowledged, free_receive_buffer, freeze_receive_buffer, grow_receive_buffer, limit_unsent, round_trip,
};

/// Bytes of a direction after which it is limited. The kernel's buffers do not grow before.
const BEGIN: u64 = 12 << 10;
/// Milliseconds between two looks. At least a round trip.
const LOOK: u64 = 50;
/// A buffer has room for what the destination takes in this many milliseconds, besides what the round trip needs. With less, a
/// busy scheduler shows as lost throughput.
const SLACK: u64 = 10;
/// Milliseconds for which a stream is fast before it is left to the kernel: the queues of a slow line take as much at first.
const SURE: u64 = 300;
/// The longest round trip that is believed, in milliseconds. A connection without a measured one shows an hour.
const LONGEST_PATH: u64 = 2_000;
/// The largest limited receive buffer, with the kernel's overhead. Every process may set it: `net.core.rmem_max` is 208 KiB by
/// default, and the kernel doubles it.
const MOST: u64 = 384 << 10;
/// Bytes in a millisecond above which nothing is limited: then the kernel's largest buffers last about 0.1 s.
const FAST: u64 = 64 << 10;
/// Bytes of a buffer for each byte of the stream: the kernel offers about half of a buffer as window.
const OVERHEAD: u64 = 2;
/// Bytes. One record waits while the one before it is sent.
const LEAST_UNSENT: u64 = 16 << 10;
/// A buffer is only changed by more than this part of its size.
const HYSTERESIS: u64 = 4;

/// The backlog of one direction of a stream.
#[derive(Debug)]
pub(super) enum Backlog {
    /// These bytes were moved, and nothing is limited yet.
    Short(u64),
    Limited {
        /// Of the source's receive buffer, in bytes with the kernel's overhead.
        size: u64,
        /// Of the last look. Times are in milliseconds since the stream began.
        looked: u64,
        /// By the destination, until then.
        acknowledged: u64,
        round_trip: u64,
        /// Since when the stream has been fast.
        fast_since: Option<u64>,
    },
    /// The stream is fast: the kernel chooses the size.
    Free,
    /// The kernel is too old.
    Impossible,
}

impl Default for Backlog {
    fn default() -> Self {
        Self::Short(0)
    }
}

impl Backlog {
    /// Whether records are moved one by one: even a few take long on a slow line, and the kernel lets the buffer grow when
    /// more is read at once.
    pub(super) fn is_small(&self) -> bool {
        match self {
            Self::Short(_) => true,
            Self::Limited { size, .. } => *size < MOST / 2,
            Self::Free | Self::Impossible => false,
        }
    }

    /// Records that bytes were read from the source and will be written to the destination.
    pub(super) fn moved(&mut self, n: usize, at: u64, source: &impl AsFd, destination: &impl AsFd) {
        match self {
            Self::Free | Self::Impossible => {}
            Self::Short(bytes) => {
                *bytes += n as u64;
                if *bytes >= BEGIN {
                    *self = Self::begin(at, source, destination);
                }
            }
            Self::Limited { size, looked, acknowledged: before, round_trip: path, fast_since } => {
                let elapsed = at - *looked;
                if elapsed < LOOK.max(*path) {
                    return;
                }
                *path = round_trip(source).map_or(0, millis).min(LONGEST_PATH);
                if elapsed < *path {
                    return;
                }
                // Fails only if the connection has ended, which the relay notices, as each call below.
                let now = acknowledged(destination).unwrap_or(*before);
                let wanted = wanted(now - *before, elapsed, *path);
                (*looked, *before) = (at, now);
                *fast_since = wanted.is_none().then(|| fast_since.unwrap_or(at));
                if fast_since.is_some_and(|since| at - since >= SURE) && *size >= MOST {
                    let _ = free_receive_buffer(source);
                    let _ = limit_unsent(destination, None);
                    *self = Self::Free;
                } else if wanted.is_none_or(|wanted| wanted > *size + *size / HYSTERESIS) {
                    *size = wanted.unwrap_or(MOST);
                    let _ = grow_receive_buffer(source, *size);
                    let _ = limit_unsent(destination, Some(unsent(*size)));
                }
            }
        }
    }

    fn begin(at: u64, source: &impl AsFd, destination: &impl AsFd) -> Self {
        let Ok(size) = freeze_receive_buffer(source) else { return Self::Impossible };
        let _ = limit_unsent(destination, Some(unsent(size)));
        let acknowledged = acknowledged(destination).unwrap_or_default();
        Self::Limited { size, looked: at, acknowledged, round_trip: 0, fast_since: None }
    }

    /// The direction has ended. The receive buffer stays frozen, so that it is as small for the next stream. Returns whether the
    /// source's buffer is too large for another stream.
    pub(super) fn end(&self, destination: &impl AsFd) -> bool {
        if let Self::Limited { .. } = self {
            // Fails only if the connection has ended.
            let _ = limit_unsent(destination, None);
        }
        matches!(self, Self::Free)
    }
}

/// The size of a receive buffer at a rate of `bytes` in `elapsed`. `None`: it is not limited. A stream that is held up by
/// the size itself gets twice as much as it has.
fn wanted(bytes: u64, elapsed: u64, round_trip: u64) -> Option<u64> {
    let on_the_way = OVERHEAD * 2 * bytes * round_trip / elapsed;
    (bytes / elapsed <= FAST && on_the_way <= MOST)
        .then(|| (on_the_way + OVERHEAD * bytes * SLACK / elapsed).min(MOST))
}

/// The most bytes that wait at the destination for being sent.
fn unsent(size: u64) -> u32 {
    u32::try_from((size / 4).max(LEAST_UNSENT)).unwrap_or(u32::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::connected;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[test]
    fn a_buffer_lasts_for_the_round_trip_and_the_slack_unless_the_stream_is_fast() {
        // 20 Mbit/s from a source in the same network, and 1.6 Mbit/s from one that is 50 ms away.
        assert_eq!(wanted(50_000, 20, 0), Some(50_000));
        assert_eq!(wanted(10_000, 50, 50), Some(44_000));
        // The first window each 50 ms, 200 Mbit/s from there, and 1 Gbit/s from anywhere.
        assert!(wanted(64 << 10, 50, 50).unwrap() > 2 * (128 << 10));
        assert_eq!(wanted(1_250_000, 50, 50), None);
        assert_eq!(wanted(2_500_000, 20, 0), None);
    }

    /// Has a destination take these bytes each [`LOOK`]. Returns whether the source's buffer is too large for another stream
    /// afterwards.
    async fn is_worn_after(bytes_each_look: &[usize]) -> bool {
        let (source, _sender) = connected().await;
        let (mut destination, mut receiver) = connected().await;
        let (mut backlog, mut at, mut all) = (Backlog::default(), 0, acknowledged(&destination).unwrap());
        backlog.moved(16 << 10, at, &source, &destination);
        for &bytes in bytes_each_look {
            let (sent, mut taken) = (vec![0; bytes], vec![0; bytes]);
            let (sent, taken) = tokio::join!(destination.write_all(&sent), receiver.read_exact(&mut taken));
            sent.unwrap();
            taken.unwrap();
            all += bytes as u64;
            let is_acknowledged = async {
                while acknowledged(&destination).unwrap() < all {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(5), is_acknowledged).await.unwrap();
            at += LOOK;
            backlog.moved(bytes, at, &source, &destination);
        }
        backlog.end(&destination)
    }

    #[tokio::test]
    async fn an_object_does_not_wear_a_carrier_and_a_fast_stream_does() {
        const FASTER: usize = 2 * (FAST * LOOK) as usize;
        let looks = usize::try_from(SURE / LOOK).unwrap();
        // Each look makes the buffer grow.
        assert!(!is_worn_after(&[150_000, 300_000, 600_000]).await);
        let mut stream = vec![FASTER; looks];
        assert!(!is_worn_after(&stream).await);
        stream.push(FASTER);
        assert!(is_worn_after(&stream).await);
        stream[looks / 2] = 60_000;
        assert!(!is_worn_after(&stream).await);
    }

    proptest! {
        #[test]
        fn the_size_grows_with_the_rate_and_the_round_trip(
            bytes in 0..1_u64 << 30, elapsed in 1..100_000_u64, path in 0..2_000_u64, more in 0..1_u64 << 20,
        ) {
            let or_all = |wanted: Option<u64>| wanted.unwrap_or(u64::MAX);
            let size = or_all(wanted(bytes, elapsed, path));
            prop_assert!(size <= MOST || size == u64::MAX);
            prop_assert!(or_all(wanted(bytes + more, elapsed, path)) >= size);
            prop_assert!(or_all(wanted(bytes, elapsed, path + more % 100)) >= size);
        }
    }
}
