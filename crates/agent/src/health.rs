//! What the agent knows of its targets, told to the gateway when it changes.
//!
//! A target is taken to be well until a dial has failed: one probe looks at it when a share is assigned, and goes on
//! while it fails. Streams' own dials count as well.

use crate::{Agent, backoff::Backoff, dial::dial};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use wicketgate_model::{Generation, ShareId};
use wicketgate_session::{
    control::{FromAgent, Health as State},
    frame::Refusal,
};

const PROBE_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Probes at a time, so that an agent with very many shares does not storm its network when it starts.
const PROBES: usize = 32;

pub(crate) struct Health {
    known: Mutex<Known>,
    pub(crate) changed: Notify,
    probes: Semaphore,
}

#[derive(Default)]
struct Known {
    shares: HashMap<ShareId, Entry>,
    untold: BTreeSet<ShareId>,
}

struct Entry {
    generation: Generation,
    state: State,
    probing: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self { known: Mutex::default(), changed: Notify::new(), probes: Semaphore::new(PROBES) }
    }
}

impl Health {
    /// A new connection knows nothing.
    pub(crate) fn clear(&self) {
        *self.known() = Known::default();
    }

    pub(crate) fn withdraw(&self, share: ShareId) {
        self.known().shares.remove(&share);
    }

    /// What the gateway has not been told yet.
    pub(crate) fn take_untold(&self) -> Vec<FromAgent> {
        let mut known = self.known();
        let Known { shares, untold } = &mut *known;
        let told = std::mem::take(untold)
            .into_iter()
            .filter_map(|share| Some(FromAgent::Health { share, health: shares.get(&share)?.state.clone() }));
        told.collect()
    }

    /// Takes what a stream's dial has shown. Answers whether somebody should begin to probe.
    fn learn(&self, share: ShareId, generation: Generation, dialled: Result<(), &Refusal>) -> bool {
        let mut known = self.known();
        let Some(entry) = self.entry(&mut known, share, generation, dialled) else { return false };
        let begin = dialled.is_err() && !entry.probing;
        entry.probing |= begin;
        begin
    }

    /// Takes what a probe has shown. Answers whether it should go on; if not, the next failed dial begins another,
    /// from the same moment on.
    fn probed(&self, share: ShareId, generation: Generation, dialled: Result<(), &Refusal>) -> bool {
        let mut known = self.known();
        let Some(entry) = self.entry(&mut known, share, generation, dialled) else { return false };
        entry.probing = dialled.is_err();
        entry.probing
    }

    /// What is known of the share at this generation, with what a dial has shown of it.
    fn entry<'a>(
        &self,
        known: &'a mut Known,
        share: ShareId,
        generation: Generation,
        dialled: Result<(), &Refusal>,
    ) -> Option<&'a mut Entry> {
        let Known { shares, untold } = known;
        let entry = shares.get_mut(&share).filter(|e| e.generation == generation)?;
        let state = match dialled {
            Ok(()) => State::Ok,
            Err(refusal) => State::Unreachable(refusal.text.clone()),
        };
        if entry.state != state {
            let reason = dialled.err().map(|refusal| refusal.reason);
            info!(share.id = %share, ?reason, "a target's health changed");
            debug!(share.id = %share, health = ?state, "a target's health changed");
            entry.state = state;
            untold.insert(share);
            self.changed.notify_one();
        }
        Some(entry)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent {
    /// Watches a target from now on, until `end`.
    pub(crate) fn watch(self: &Arc<Self>, share: ShareId, generation: Generation, end: &CancellationToken) {
        let entry = Entry { generation, state: State::Ok, probing: true };
        self.health.known().shares.insert(share, entry);
        self.spawn_probe(share, generation, end);
    }

    /// Takes what a stream's dial has shown.
    pub(crate) fn learn(
        self: &Arc<Self>,
        share: ShareId,
        generation: Generation,
        dialled: Result<(), &Refusal>,
        end: &CancellationToken,
    ) {
        // After the connection's end there is nobody to tell, and the next one starts anew.
        if !end.is_cancelled() && self.health.learn(share, generation, dialled) {
            self.spawn_probe(share, generation, end);
        }
    }

    fn spawn_probe(self: &Arc<Self>, share: ShareId, generation: Generation, end: &CancellationToken) {
        let probe = Arc::clone(self).probe(share, generation);
        tokio::spawn(end.clone().run_until_cancelled_owned(probe));
    }

    async fn probe(self: Arc<Self>, share: ShareId, generation: Generation) {
        let mut backoff = Backoff::new(PROBE_AGAIN.0, PROBE_AGAIN.1);
        loop {
            let Some((now, target)) = self.assignments.target(share, generation) else { return };
            if now != generation {
                return;
            }
            let Ok(permit) = self.health.probes.acquire().await else { return };
            let dialled = dial(&target, &self.assignments.allow).await;
            drop(permit);
            if !self.health.probed(share, generation, dialled.as_ref().map(|_| ())) {
                return;
            }
            if let Err(refusal) = dialled {
                debug!(share.id = %share, reason = %refusal, "a probe failed");
            }
            sleep(backoff.next()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wicketgate_session::frame::RefusalReason;

    #[test]
    fn a_dial_that_fails_after_the_probes_end_begins_another() {
        let (health, share, generation): (_, ShareId, _) =
            (Health::default(), "shr-00000000000070008000000000000001".parse().unwrap(), Generation::FIRST);
        let refusal = Refusal { reason: RefusalReason::ConnectionRefused, text: "no".to_owned() };
        let entry = Entry { generation, state: State::Ok, probing: true };
        health.known().shares.insert(share, entry);
        assert!(!health.learn(share, generation, Err(&refusal)), "one is running");
        assert!(health.probed(share, generation, Err(&refusal)), "it goes on while it fails");
        assert!(!health.probed(share, generation, Ok(())));
        // Right behind the probe's last look, before its task has ended.
        assert!(health.learn(share, generation, Err(&refusal)));
        assert!(!health.learn(share, generation, Err(&refusal)));
        // A probe of an older generation ends, and leaves the newer one's alone.
        let next = Generation::new(2);
        health.known().shares.insert(share, Entry { generation: next, state: State::Ok, probing: true });
        assert!(!health.probed(share, generation, Err(&refusal)));
        assert!(health.known().shares[&share].probing);
    }
}
