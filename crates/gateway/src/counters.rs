//! Traffic of each share: one set of atomic counters for each share, written by its connections, that feeds metric
//! buckets and Prometheus.

use std::{
    array,
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use wicketgate_model::{DialTimes, FailureReason, ShareId, TrafficDelta, TunnelId, Unanswered};
use wicketgate_system::Mutex;
use wicketgate_transport::relay::AnswerCounters;

/// The counters of one share on one tunnel, since the last report.
#[derive(Debug, Default)]
pub(crate) struct ShareCounters {
    /// Payload bytes from the remote site to the target.
    pub(crate) rx: AtomicU64,
    /// Payload bytes from the target to the remote site.
    pub(crate) tx: AtomicU64,
    /// Opened connections, by the time it took.
    opened: [AtomicU64; DialTimes::BUCKETS],
    dial_micros: AtomicU64,
    /// Opened connections, by the first answer of their target.
    pub(crate) answers: AnswerCounters,
    failed: [AtomicU64; FailureReason::ALL.len()],
    /// Addresses of clients that were refused.
    refused: Mutex<BTreeSet<IpAddr>>,
    active: AtomicU64,
    active_peak: AtomicU64,
}

impl ShareCounters {
    /// A connection reached its target. It counts as active until the value is dropped.
    pub(crate) fn open(self: &Arc<Self>, took: Duration) -> ActiveConnection {
        self.opened[DialTimes::bucket(took)].fetch_add(1, Relaxed);
        self.dial_micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
        let active = self.active.fetch_add(1, Relaxed) + 1;
        self.active_peak.fetch_max(active, Relaxed);
        ActiveConnection(Arc::clone(self))
    }

    /// Counts a connection that could not be served.
    pub(crate) fn fail(&self, reason: FailureReason) {
        self.failed[reason as usize].fetch_add(1, Relaxed);
    }

    /// Counts a connection of this client that was not admitted.
    pub(crate) fn refuse(&self, client: IpAddr, reason: FailureReason) {
        self.fail(reason);
        let mut refused = self.refused.lock();
        if refused.len() < TrafficDelta::REFUSED_SOURCES {
            refused.insert(client.to_canonical());
        }
    }

    /// What was counted since the last call.
    fn take(&self, share: ShareId, tunnel: TunnelId) -> TrafficDelta {
        let take = |counter: &AtomicU64| counter.swap(0, Relaxed);
        let dials =
            DialTimes { counts: array::from_fn(|n| take(&self.opened[n])), micros: take(&self.dial_micros) };
        let failures = FailureReason::ALL.map(|reason| (reason, take(&self.failed[reason as usize])));
        TrafficDelta {
            failures: failures.into_iter().filter(|(_, failed)| *failed > 0).collect(),
            refused_sources: mem::take(&mut *self.refused.lock()),
            rx: take(&self.rx),
            tx: take(&self.tx),
            connections: dials.count(),
            answered: take(&self.answers.answered),
            unanswered: Unanswered { silent: take(&self.answers.silent), ended: take(&self.answers.ended) },
            dials,
            // The next peak starts from what is open now.
            active: self.active_peak.swap(self.active.load(Relaxed), Relaxed),
            ..TrafficDelta::new(share, tunnel)
        }
    }
}

/// See [`ShareCounters::open`].
#[derive(Debug)]
pub(crate) struct ActiveConnection(Arc<ShareCounters>);

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// The counters of all shares.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<BTreeMap<(ShareId, TunnelId), Arc<ShareCounters>>>);

impl Counters {
    pub(crate) fn of(&self, share: ShareId, tunnel: TunnelId) -> Arc<ShareCounters> {
        Arc::clone(self.0.lock().entry((share, tunnel)).or_default())
    }

    /// The traffic since the last call. An unused entry is dropped with its last report.
    pub(crate) fn take(&self) -> Vec<TrafficDelta> {
        let mut deltas = Vec::new();
        self.0.lock().retain(|&(share, tunnel), counters| {
            // Read before the counters: a connection that still writes to them keeps the entry for another report.
            let in_use = Arc::strong_count(counters) > 1;
            let delta = counters.take(share, tunnel);
            // A client that stays connected is worth a bucket even while it is silent.
            if !delta.is_empty() {
                deltas.push(delta);
            }
            in_use
        });
        deltas
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn every_byte_is_reported_once() {
        let counters = Counters::default();
        let (share, tunnel) = (ShareId::new(Uuid::nil()), TunnelId::new(Uuid::nil()));
        let mine = counters.of(share, tunnel);
        let (quick, slow) = (Duration::from_micros(700), Duration::from_secs(9));
        let first = mine.open(quick);
        drop(mine.open(slow));
        mine.rx.fetch_add(10, Relaxed);
        mine.fail(FailureReason::ShareFull);
        mine.fail(FailureReason::ShareFull);
        mine.fail(FailureReason::NoAgent);
        let [delta] = &counters.take()[..] else { panic!("expected the delta of one share") };
        assert_eq!((delta.rx, delta.tx, delta.connections, delta.failed(), delta.active), (10, 0, 2, 3, 2));
        assert_eq!(delta.failures, [(FailureReason::ShareFull, 2), (FailureReason::NoAgent, 1)].into());
        assert_eq!((delta.dials.counts[1], delta.dials.counts[11], delta.dials.micros), (1, 1, 9_000_700));
        mine.tx.fetch_add(5, Relaxed);
        let [delta] = &counters.take()[..] else { panic!("expected the delta of one share") };
        assert_eq!((delta.rx, delta.tx, delta.connections, delta.failed(), delta.active), (0, 5, 0, 0, 1));
        assert_eq!(delta.dials, DialTimes::default());
        // A removed share keeps its counters until its last connection ends.
        drop(mine);
        assert_eq!(counters.take().len(), 1);
        drop(first);
        counters.take();
        assert!(counters.take().is_empty() && counters.0.lock().is_empty());
    }

    #[test]
    fn every_reason_has_its_own_counter() {
        for (n, reason) in FailureReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, n);
        }
    }
}
