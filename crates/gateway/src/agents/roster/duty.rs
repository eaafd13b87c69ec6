//! The duty to probe the target of one share, and the use of the share by clients.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use wicketgate_model::AgentId;

/// See the module.
#[derive(Default)]
pub(super) struct Duty {
    /// An agent and the number of its control connection.
    pub(super) prober: Option<(AgentId, u64)>,
    streams: Arc<AtomicUsize>,
    /// When the share last had a stream, as far as was looked; `None`: it is not in use.
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

    /// Ends the use of a share that has had no stream for this time. Returns whether it is in use.
    pub(super) fn rest(&mut self, after: Duration, now: Instant) -> bool {
        if self.streams.load(Ordering::Relaxed) > 0 {
            self.used_at = Some(now);
        } else if self.used_at.is_some_and(|at| now.saturating_duration_since(at) >= after) {
            self.used_at = None;
        }
        self.is_in_use()
    }
}
