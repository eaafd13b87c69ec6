//! A stream, as far as it concerns the health of its target.

use super::TargetHealths;
use std::fmt;
use tokio::time::Instant;
use wicketgate_model::Target;
use wicketgate_transport::relay::Acknowledgements;

/// A stream that uses a target, until it is dropped.
pub(crate) struct TargetInUse<'a> {
    healths: &'a TargetHealths,
    target: Target,
    is_lost: bool,
}

impl<'a> TargetInUse<'a> {
    /// The caller has counted it.
    pub(super) fn new(healths: &'a TargetHealths, target: Target) -> Self {
        Self { healths, target, is_lost: false }
    }

    /// The target has stopped to answer: it is probed as soon as no stream uses it.
    pub(crate) fn lost(&mut self) {
        self.is_lost = true;
    }
}

impl Acknowledgements for TargetInUse<'_> {
    fn stopped_or_resumed(&self) {
        if let Some(state) = self.healths.known.lock().targets.get_mut(&self.target) {
            state.doubt(Instant::now());
        }
        self.healths.rescheduled.notify_one();
    }
}

impl fmt::Debug for TargetInUse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetInUse").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Drop for TargetInUse<'_> {
    fn drop(&mut self) {
        let mut known = self.healths.known.lock();
        if let Some(state) = known.targets.get_mut(&self.target) {
            state.stream_ended(Instant::now(), self.is_lost);
        }
        known.forget_unused(&self.target);
        drop(known);
        self.healths.rescheduled.notify_one();
    }
}
