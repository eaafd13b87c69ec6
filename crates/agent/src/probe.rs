//! Probes of targets: when a share is assigned, when a dial has failed, and when a target is due.

use crate::{agent::Agent, dial::dial, health::DialledBy};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use wicketgate_model::{Generation, ShareId};
use wicketgate_system::backoff::Backoff;
use wicketgate_transport::frame::StreamRefusal;

/// Between failed probes of a target.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Concurrent probes, so that an agent with very many shares does not flood its network when it starts.
pub(crate) const PROBES: usize = 32;
/// How often due targets are collected: often enough to spread many probes.
const DUE_EVERY: Duration = Duration::from_secs(1);

impl Agent {
    /// Watches a target until `end`.
    pub(crate) fn watch(self: &Arc<Self>, share: ShareId, generation: Generation, end: &CancellationToken) {
        self.health.add(share, generation);
        self.spawn_probe(share, generation, end);
    }

    /// Records the result of a stream's dial.
    pub(crate) fn learn(
        self: &Arc<Self>,
        share: ShareId,
        generation: Generation,
        dialled: Result<(), &StreamRefusal>,
        end: &CancellationToken,
    ) {
        // The connection has ended, and the next one starts without shares.
        if !end.is_cancelled() && self.health.record((share, generation), dialled, DialledBy::Stream) {
            self.spawn_probe(share, generation, end);
        }
    }

    /// Probes due targets until it is dropped.
    pub(crate) async fn probe_due_targets(self: Arc<Self>, end: CancellationToken) {
        loop {
            sleep(DUE_EVERY).await;
            for (share, generation) in self.health.take_due(Instant::now()) {
                self.spawn_probe(share, generation, &end);
            }
        }
    }

    fn spawn_probe(self: &Arc<Self>, share: ShareId, generation: Generation, end: &CancellationToken) {
        let probe = Arc::clone(self).probe(share, generation);
        tokio::spawn(end.clone().run_until_cancelled_owned(probe));
    }

    async fn probe(self: Arc<Self>, share: ShareId, generation: Generation) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let assigned = self.assignments.target(share, generation);
            let Some((_, target)) = assigned.filter(|(newest, _)| *newest == generation) else { return };
            let Ok(permit) = self.probes.acquire().await else { return };
            let dialled = dial(&target, &self.assignments.allow, &self.names).await;
            drop(permit);
            if !self.health.record((share, generation), dialled.as_ref().map(drop), DialledBy::Probe) {
                return;
            }
            if let Err(refusal) = dialled {
                debug!(share.id = %share, reason = %refusal, "a probe failed");
            }
            sleep(backoff.randomized()).await;
        }
    }
}
