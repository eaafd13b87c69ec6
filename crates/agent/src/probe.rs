//! Probes of targets: connections that are not completed, so that a target's program does not notice them.

use crate::{agent::Agent, dial::probe, health::DialledBy};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use wicketgate_model::Target;

/// Concurrent probes, so that an agent with very many shares does not flood its network when it starts.
pub(crate) const PROBES: usize = 32;
/// The longest wait for a probe that is due.
const RARELY: Duration = Duration::from_secs(3600);

impl Agent {
    /// Probes targets when they are due, until it is dropped.
    pub(crate) async fn probe_due_targets(self: Arc<Self>, end: CancellationToken) {
        loop {
            let now = Instant::now();
            for target in self.health.take_due(now) {
                tokio::spawn(end.clone().run_until_cancelled_owned(Arc::clone(&self).probe(target)));
            }
            let next = self.health.next_due().unwrap_or(now + RARELY);
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.health.rescheduled.notified() => {}
            }
        }
    }

    async fn probe(self: Arc<Self>, target: Target) {
        let Ok(permit) = self.probes.acquire().await else { return };
        let is_doubted = self.health.is_doubted(&target);
        let allow = Arc::clone(&self.assignments.allow.borrow());
        let probed = probe(&target, &allow, &self.route.names, is_doubted).await;
        drop(permit);
        if let Err(refusal) = &probed {
            debug!(reason = %refusal, "a probe failed");
        }
        self.health.record(&target, probed.as_ref().copied(), DialledBy::Probe, Instant::now());
    }
}
