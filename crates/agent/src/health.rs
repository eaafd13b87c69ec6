//! The reachability of targets, reported to the gateway when it changes.
//!
//! A target counts as reachable until a dial fails. It is probed when its share is assigned, and again while probes
//! fail. Dials of streams count as probes. A target without a successful dial for a while is probed again, so that the
//! status of an unused share is not stale.

use crate::{Agent, dial::dial};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use wicketgate_model::{Generation, ShareId};
use wicketgate_system::{
    Mutex,
    backoff::{Backoff, spread},
};
use wicketgate_transport::{
    control::{FromAgent, TargetHealth as State},
    frame::StreamRefusal,
};

const PROBE_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Concurrent probes, so that an agent with very many shares does not flood its network when it starts.
const PROBES: usize = 32;
/// The longest time between two probes of a reachable target: short enough for a true status, long enough to be no
/// load and to fill no log. Each wait is randomized.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often due targets are looked for: fine enough to spread many probes.
const ROUND: Duration = Duration::from_secs(1);

pub(crate) struct TargetProbes {
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
    /// When a reachable target is probed again.
    look_at: Instant,
}

impl Entry {
    fn new(generation: Generation) -> Self {
        Self { generation, state: State::Ok, probing: true, look_at: Instant::now() }
    }
}

impl Default for TargetProbes {
    fn default() -> Self {
        Self { known: Mutex::default(), changed: Notify::new(), probes: Semaphore::new(PROBES) }
    }
}

impl TargetProbes {
    /// Forgets everything: a new gateway connection starts without shares.
    pub(crate) fn clear(&self) {
        *self.known.lock() = Known::default();
    }

    pub(crate) fn withdraw(&self, share: ShareId) {
        self.known.lock().shares.remove(&share);
    }

    /// Changes that were not reported to the gateway yet.
    pub(crate) fn take_untold(&self) -> Vec<FromAgent> {
        let mut known = self.known.lock();
        let Known { shares, untold } = &mut *known;
        let told = std::mem::take(untold)
            .into_iter()
            .filter_map(|share| Some(FromAgent::Health { share, health: shares.get(&share)?.state.clone() }));
        told.collect()
    }

    /// Records the result of a stream's dial. Returns whether a probe should start.
    fn learn(&self, share: ShareId, generation: Generation, dialled: Result<(), &StreamRefusal>) -> bool {
        let mut known = self.known.lock();
        let Some(entry) = self.entry(&mut known, share, generation, dialled) else { return false };
        let begin = dialled.is_err() && !entry.probing;
        entry.probing |= begin;
        begin
    }

    /// Records the result of a probe. Returns whether it should continue; if not, the next failed dial starts a new
    /// probe.
    fn probed(&self, share: ShareId, generation: Generation, dialled: Result<(), &StreamRefusal>) -> bool {
        let mut known = self.known.lock();
        let Some(entry) = self.entry(&mut known, share, generation, dialled) else { return false };
        entry.probing = dialled.is_err();
        entry.probing
    }

    /// Targets that are due for a probe. The caller probes them.
    fn take_due(&self, now: Instant) -> Vec<(ShareId, Generation)> {
        let mut known = self.known.lock();
        let due = known.shares.iter_mut().filter(|(_, e)| !e.probing && e.look_at <= now);
        due.map(|(share, entry)| {
            entry.probing = true;
            (*share, entry.generation)
        })
        .collect()
    }

    /// Records a dial's result at the entry of this share and generation.
    fn entry<'a>(
        &self,
        known: &'a mut Known,
        share: ShareId,
        generation: Generation,
        dialled: Result<(), &StreamRefusal>,
    ) -> Option<&'a mut Entry> {
        let Known { shares, untold } = known;
        let entry = shares.get_mut(&share).filter(|e| e.generation == generation)?;
        let state = match dialled {
            Ok(()) => State::Ok,
            Err(refusal) => State::Unreachable(refusal.text.clone()),
        };
        if dialled.is_ok() {
            entry.look_at = Instant::now() + spread(LOOK_EVERY);
        }
        if entry.state != state {
            match dialled {
                Ok(()) => info!(share.id = %share, "target is reachable again"),
                Err(StreamRefusal { reason, .. }) if entry.state == State::Ok => {
                    warn!(share.id = %share, ?reason, "target became unreachable");
                }
                Err(_) => {}
            }
            debug!(share.id = %share, health = ?state, "a target's health changed");
            entry.state = state;
            untold.insert(share);
            self.changed.notify_one();
        }
        Some(entry)
    }
}

impl Agent {
    /// Watches a target until `end`.
    pub(crate) fn watch(self: &Arc<Self>, share: ShareId, generation: Generation, end: &CancellationToken) {
        self.health.known.lock().shares.insert(share, Entry::new(generation));
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
        if !end.is_cancelled() && self.health.learn(share, generation, dialled) {
            self.spawn_probe(share, generation, end);
        }
    }

    /// Probes due targets until it is dropped.
    pub(crate) async fn make_rounds(self: Arc<Self>, end: CancellationToken) {
        loop {
            sleep(ROUND).await;
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
            sleep(backoff.randomized()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wicketgate_transport::frame::RefusalReason;

    #[test]
    fn a_dial_that_fails_after_the_probes_end_begins_another() {
        let (health, share, generation): (_, ShareId, _) = (
            TargetProbes::default(),
            "shr-00000000000070008000000000000001".parse().unwrap(),
            Generation::FIRST,
        );
        let refusal = StreamRefusal { reason: RefusalReason::ConnectionRefused, text: "no".to_owned() };
        health.known.lock().shares.insert(share, Entry::new(generation));
        assert!(!health.learn(share, generation, Err(&refusal)), "one is running");
        assert!(health.probed(share, generation, Err(&refusal)), "it goes on while it fails");
        assert!(!health.probed(share, generation, Ok(())));
        // Right behind the probe's last look, before its task has ended.
        assert!(health.learn(share, generation, Err(&refusal)));
        assert!(!health.learn(share, generation, Err(&refusal)));
        // A probe of an older generation ends, and leaves the newer one's alone.
        let next = Generation::new(2);
        health.known.lock().shares.insert(share, Entry::new(next));
        assert!(!health.probed(share, generation, Err(&refusal)));
        assert!(health.known.lock().shares[&share].probing);
    }

    #[test]
    fn a_target_that_nothing_reaches_is_due_for_a_look_and_one_that_streams_reach_is_not() {
        let (health, share, generation): (_, ShareId, _) = (
            TargetProbes::default(),
            "shr-00000000000070008000000000000001".parse().unwrap(),
            Generation::FIRST,
        );
        health.known.lock().shares.insert(share, Entry::new(generation));
        let far = Instant::now() + 2 * LOOK_EVERY;
        assert_eq!(health.take_due(far), [], "the first probe is running");
        assert!(!health.probed(share, generation, Ok(())));
        assert_eq!(health.take_due(Instant::now() + LOOK_EVERY / 2), []);
        // A stream's dial puts the look off.
        health.known.lock().shares.get_mut(&share).unwrap().look_at = Instant::now();
        assert!(!health.learn(share, generation, Ok(())));
        assert_eq!(health.take_due(Instant::now() + LOOK_EVERY / 2), []);
        let refusal = StreamRefusal { reason: RefusalReason::ConnectionRefused, text: "no".to_owned() };
        assert_eq!(health.take_due(Instant::now() + LOOK_EVERY), [(share, generation)]);
        assert_eq!(health.take_due(far), [], "one probe at a time");
        assert!(health.probed(share, generation, Err(&refusal)), "it goes on while it fails");
        assert_eq!(health.take_due(far), []);
    }
}
