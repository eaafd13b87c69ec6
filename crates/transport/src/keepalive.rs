//! Finding peers whose host has vanished, by TCP's keepalive probes.
//!
//! Invariant: connections that were made together are not probed together, and no few lost probes end one. The kernel
//! fires the timers of some seconds at once, and of thousands of probes in one burst a queue on their way drops what it
//! has no room for (1,000 packets on the loopback interface): their connections would be taken for dead while nothing
//! is wrong.

use socket2::{SockRef, TcpKeepalive};
use std::{
    io,
    os::fd::AsFd,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Probes without an answer until a peer is taken for dead: Linux's own number.
const PROBES: u32 = 9;

/// Connections so far.
static TURN: AtomicU64 = AtomicU64::new(0);

/// Probes begin after a silence between `after` and twice that; whoever has not answered within three times `after` is
/// taken for dead.
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
    async fn connections_made_together_are_probed_one_after_the_other() {
        let after = Duration::from_secs(30);
        let mut times = BTreeSet::new();
        for _ in 0..10 {
            let (tcp, _) = connected().await;
            keepalive(&tcp, after).unwrap();
            let tcp = SockRef::from(&tcp);
            assert!(tcp.keepalive().unwrap());
            times.insert(tcp.tcp_keepalive_time().unwrap());
        }
        // Other tests take turns, too.
        assert!(times.len() > 5, "{times:?}");
        assert!(times.iter().all(|t| (after..2 * after).contains(t)), "{times:?}");
    }
}
