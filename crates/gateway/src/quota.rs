//! Permits for connections and listeners: granted or refused, never waited for. A queued client would learn nothing, and
//! delay those behind it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The number of permits in use. The caller gives the limit, because a share's limit may change.
#[derive(Debug, Default)]
pub(crate) struct ConnectionQuota(AtomicUsize);

/// A permit, returned when it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionPermit(Arc<ConnectionQuota>);

impl ConnectionQuota {
    /// Whether no permit is in use.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Relaxed) == 0
    }

    /// Permits in use.
    pub(crate) fn used(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// A permit, if fewer than `most` are in use.
    pub(crate) fn enter(self: &Arc<Self>, most: usize) -> Option<ConnectionPermit> {
        let room = self.0.fetch_update(Relaxed, Relaxed, |taken| (taken < most).then_some(taken + 1));
        room.is_ok().then(|| ConnectionPermit(Arc::clone(self)))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_limit_leaves_granted_permits_valid() {
        let room = Arc::new(ConnectionQuota::default());
        let mut inside: Vec<_> = std::iter::from_fn(|| room.enter(3)).collect();
        assert_eq!(inside.len(), 3);
        inside.pop();
        assert!(room.enter(2).is_none());
        inside.pop();
        assert!(room.enter(2).is_some());
    }
}
