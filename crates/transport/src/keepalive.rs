//! Detects vanished hosts by TCP keepalive probes.
//!
//! Invariant: connections that were made together are not probed together, and a few lost probes do not end a
//! connection. The kernel fires the timers of some seconds at once. A burst of thousands of probes overflows queues on
//! the path (1,000 packets on the loopback interface), which would end live connections.

use socket2::{SockRef, TcpKeepalive};
use std::{
    io,
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Unanswered probes after which a peer is dead: Linux's default.
const PROBES: u32 = 9;

/// Connections so far.
static TURN: AtomicU64 = AtomicU64::new(0);

/// Probes begin after a silence between `after` and twice that; a peer that does not answer within three times `after`
/// is dead.
pub fn keepalive(tcp: &impl AsFd, after: Duration) -> io::Result<()> {
    let turn = TURN.fetch_add(1, Ordering::Relaxed) % after.as_secs().max(1);
    let keepalive = TcpKeepalive::new()
        .with_time(after + Duration::from_secs(turn))
        .with_interval(after / (PROBES + 1))
        .with_retries(PROBES);
    SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::tests::connected;
    use std::collections::BTreeSet;

    #[tokio::test]
    async fn connections_made_together_are_probed_at_different_times() {
        let after = Duration::from_secs(30);
        let mut times = BTreeSet::new();
        for _ in 0..10 {
            let (tcp, _) = connected().await;
            keepalive(&tcp, after).unwrap();
            let tcp = SockRef::from(&tcp);
            assert!(tcp.keepalive().unwrap());
            times.insert(tcp.tcp_keepalive_time().unwrap());
        }
        // Other tests advance the shared counter, too.
        assert!(times.len() > 5, "{times:?}");
        assert!(times.iter().all(|t| (after..2 * after).contains(t)), "{times:?}");
    }
}
