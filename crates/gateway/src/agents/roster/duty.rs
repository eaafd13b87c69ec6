//! The duty to probe the target of one share, and the use of the share by clients.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use wicketgate_model::AgentId;

/// How long a share counts as in use after its last connection was opened and all have ended.
pub(super) const REST_AFTER: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Default)]
pub(super) struct Duty {
    /// An agent and the number of its control connection.
    pub(super) prober: Option<(AgentId, u64)>,
    streams: Arc<AtomicUsize>,
    /// When a stream was last opened; `None`: the share is not in use.
    used_at: Option<Instant>,
}

/// Counts as a stream of its share until it is dropped.
#[derive(Debug)]
pub(crate) struct ShareInUse(Arc<AtomicUsize>);

impl Drop for ShareInUse {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Duty {
    /// A stream is opened. Returns whether the share was not in use before.
    pub(super) fn begin(&mut self, now: Instant) -> (ShareInUse, bool) {
        self.streams.fetch_add(1, Ordering::Relaxed);
        (ShareInUse(Arc::clone(&self.streams)), self.used_at.replace(now).is_none())
    }

    pub(super) fn is_in_use(&self) -> bool {
        self.used_at.is_some()
    }

    /// Ends the use of a share without streams. Returns whether it is in use.
    pub(super) fn rest(&mut self, now: Instant) -> bool {
        let is_recent = self.used_at.is_some_and(|at| now.saturating_duration_since(at) < REST_AFTER);
        if !is_recent && self.streams.load(Ordering::Relaxed) == 0 {
            self.used_at = None;
        }
        self.is_in_use()
    }
}
