//! What each share has carried: one set of atomic counters per share, written by its connections.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use wicketgate_model::{ShareId, TrafficDelta, TunnelId};

/// The counters of one share on one tunnel. They only grow, save `active` and its peak.
#[derive(Debug, Default)]
pub(crate) struct ShareCounters {
    /// Payload bytes from the remote site to the target.
    pub(crate) rx: Arc<AtomicU64>,
    /// Payload bytes from the target to the remote site.
    pub(crate) tx: Arc<AtomicU64>,
    opened: AtomicU64,
    failed: AtomicU64,
    active: AtomicU64,
    active_peak: AtomicU64,
}

impl ShareCounters {
    /// A connection reached its target. It counts as active until the value is dropped.
    pub(crate) fn open(self: &Arc<Self>) -> ActiveConnection {
        self.opened.fetch_add(1, Relaxed);
        let active = self.active.fetch_add(1, Relaxed) + 1;
        self.active_peak.fetch_max(active, Relaxed);
        ActiveConnection(Arc::clone(self))
    }

    /// A connection could not be served.
    pub(crate) fn fail(&self) {
        self.failed.fetch_add(1, Relaxed);
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

/// The counters of all shares, and what of them was reported already.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<BTreeMap<(ShareId, TunnelId), Entry>>);

#[derive(Debug, Default)]
struct Entry {
    counters: Arc<ShareCounters>,
    rx: u64,
    tx: u64,
    opened: u64,
    failed: u64,
}

impl Counters {
    pub(crate) fn of(&self, share: ShareId, tunnel: TunnelId) -> Arc<ShareCounters> {
        Arc::clone(&self.lock().entry((share, tunnel)).or_default().counters)
    }

    /// What was carried since the last call. Shares that nobody serves any more are forgotten with their last
    /// report.
    pub(crate) fn take(&self) -> Vec<TrafficDelta> {
        let mut deltas = Vec::new();
        self.lock().retain(|&(share, tunnel), entry| {
            let c = &entry.counters;
            // Looked at before the counters are: whoever still writes to them keeps the entry for another report.
            let in_use = Arc::strong_count(c) > 1;
            let since = |now: &AtomicU64, told: &mut u64| {
                let now = now.load(Relaxed);
                now - std::mem::replace(told, now)
            };
            let delta = TrafficDelta {
                share,
                tunnel,
                rx: since(&c.rx, &mut entry.rx),
                tx: since(&c.tx, &mut entry.tx),
                connections: since(&c.opened, &mut entry.opened),
                failures: since(&c.failed, &mut entry.failed),
                // The next peak starts from what is open now.
                active: c.active_peak.swap(c.active.load(Relaxed), Relaxed),
            };
            // A client that stays connected is worth a bucket even while it is silent.
            if delta.rx + delta.tx + delta.connections + delta.failures + delta.active > 0 {
                deltas.push(delta);
            }
            in_use
        });
        deltas
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(ShareId, TunnelId), Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let first = mine.open();
        drop(mine.open());
        mine.rx.fetch_add(10, Relaxed);
        mine.fail();
        let [delta] = &counters.take()[..] else { panic!("one share carried something") };
        assert_eq!((delta.rx, delta.tx, delta.connections, delta.failures, delta.active), (10, 0, 2, 1, 2));
        mine.tx.fetch_add(5, Relaxed);
        let [delta] = &counters.take()[..] else { panic!("one share carried something") };
        assert_eq!((delta.rx, delta.tx, delta.connections, delta.failures, delta.active), (0, 5, 0, 0, 1));
        // A share that is gone keeps its counters until its last connection is.
        drop(mine);
        assert_eq!(counters.take().len(), 1);
        drop(first);
        counters.take();
        assert!(counters.take().is_empty() && counters.lock().is_empty());
    }
}
