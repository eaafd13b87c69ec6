//! The reachability of targets, reported to the gateway when it changes.
//!
//! A target counts as reachable until a dial fails. Dials of streams count like probes. A target without a successful
//! dial for a while is due for a probe, so that the status of an unused share is not stale.

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use tracing::{debug, info, warn};
use wicketgate_model::{Generation, ShareId};
use wicketgate_system::{Mutex, backoff::spread};
use wicketgate_transport::{
    control::{FromAgent, TargetHealth},
    frame::{RefusalReason, StreamRefusal},
};

/// The longest time between two probes of a reachable target: short enough for a current status, long enough to cause
/// no load and to fill no log. Each pause is randomized.
const PROBE_EVERY: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct TargetHealths {
    known: Mutex<Known>,
    pub(crate) changed: Notify,
}

#[derive(Default)]
struct Known {
    shares: HashMap<ShareId, Entry>,
    unreported: BTreeSet<ShareId>,
}

struct Entry {
    generation: Generation,
    /// Of the last dial, if it failed.
    failure: Option<StreamRefusal>,
    probing: bool,
    /// When a reachable target is probed again.
    probe_at: Instant,
}

impl Entry {
    fn report(&self, share: ShareId) -> FromAgent {
        let health = match &self.failure {
            None => TargetHealth::Ok,
            Some(refusal) => TargetHealth::Unreachable(refusal.text.clone()),
        };
        let agent_exhausted =
            self.failure.as_ref().is_some_and(|r| r.reason == RefusalReason::AgentExhausted);
        FromAgent::Health { share, health, agent_exhausted }
    }
}

/// Who has dialled a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DialledBy {
    Stream,
    Probe,
}

impl TargetHealths {
    /// Forgets everything: a new gateway connection starts without shares.
    pub(crate) fn clear(&self) {
        *self.known.lock() = Known::default();
    }

    /// Adds the share's target. The caller starts its first probe.
    pub(crate) fn add(&self, share: ShareId, generation: Generation) {
        let entry = Entry { generation, failure: None, probing: true, probe_at: Instant::now() };
        self.known.lock().shares.insert(share, entry);
    }

    pub(crate) fn withdraw(&self, share: ShareId) {
        self.known.lock().shares.remove(&share);
    }

    /// Changes that were not reported to the gateway yet.
    pub(crate) fn take_unreported(&self) -> Vec<FromAgent> {
        let mut known = self.known.lock();
        let Known { shares, unreported } = &mut *known;
        let changes = mem::take(unreported).into_iter();
        changes.filter_map(|share| Some(shares.get(&share)?.report(share))).collect()
    }

    /// Records the result of a dial. Returns whether the share needs a probe: after a stream's dial, whether one should
    /// start; after a probe's, whether it should continue.
    pub(crate) fn record(
        &self,
        (share, generation): (ShareId, Generation),
        dialled: Result<(), &StreamRefusal>,
        by: DialledBy,
    ) -> bool {
        let mut known = self.known.lock();
        let Known { shares, unreported } = &mut *known;
        let Some(entry) = shares.get_mut(&share).filter(|e| e.generation == generation) else { return false };
        let failure = dialled.err();
        if dialled.is_ok() {
            entry.probe_at = Instant::now() + spread(PROBE_EVERY);
        }
        if entry.failure.as_ref() != failure {
            match failure {
                None => info!(share.id = %share, "target is reachable again"),
                Some(StreamRefusal { reason: RefusalReason::AgentExhausted, text }) => {
                    warn!(share.id = %share, error = text, "cannot dial a target");
                }
                Some(StreamRefusal { reason, .. }) if entry.failure.is_none() => {
                    warn!(share.id = %share, ?reason, "target became unreachable");
                }
                Some(_) => {}
            }
            debug!(share.id = %share, ?failure, "a target's health changed");
            entry.failure = failure.cloned();
            unreported.insert(share);
            self.changed.notify_one();
        }
        match by {
            DialledBy::Probe => {
                entry.probing = dialled.is_err();
                entry.probing
            }
            DialledBy::Stream => dialled.is_err() && !mem::replace(&mut entry.probing, true),
        }
    }

    /// Targets that are due for a probe. The caller probes them.
    pub(crate) fn take_due(&self, now: Instant) -> Vec<(ShareId, Generation)> {
        let mut known = self.known.lock();
        let due = known.shares.iter_mut().filter(|(_, e)| !e.probing && e.probe_at <= now);
        due.map(|(share, entry)| {
            entry.probing = true;
            (*share, entry.generation)
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dial_that_fails_after_the_end_of_a_probe_starts_another() {
        let (health, share, generation): (_, ShareId, _) = (
            TargetHealths::default(),
            "shr-00000000000070008000000000000001".parse().unwrap(),
            Generation::FIRST,
        );
        let refusal = StreamRefusal { reason: RefusalReason::ConnectionRefused, text: "no".to_owned() };
        health.add(share, generation);
        assert!(
            !health.record((share, generation), Err(&refusal), DialledBy::Stream),
            "a probe is already running"
        );
        assert!(
            health.record((share, generation), Err(&refusal), DialledBy::Probe),
            "the probe continues while its dials fail"
        );
        assert!(!health.record((share, generation), Ok(()), DialledBy::Probe));
        // Right after the probe's last dial, before its task has ended.
        assert!(health.record((share, generation), Err(&refusal), DialledBy::Stream));
        assert!(!health.record((share, generation), Err(&refusal), DialledBy::Stream));
        // A probe of an older generation ends and does not affect the newer one's.
        let next = Generation::new(2);
        health.add(share, next);
        assert!(!health.record((share, generation), Err(&refusal), DialledBy::Probe));
        assert!(health.known.lock().shares[&share].probing);
    }

    #[test]
    fn an_unused_target_is_due_for_a_probe_and_one_that_streams_reach_is_not() {
        let (health, share, generation): (_, ShareId, _) = (
            TargetHealths::default(),
            "shr-00000000000070008000000000000001".parse().unwrap(),
            Generation::FIRST,
        );
        health.add(share, generation);
        let far = Instant::now() + 2 * PROBE_EVERY;
        assert_eq!(health.take_due(far), [], "the first probe is running");
        assert!(!health.record((share, generation), Ok(()), DialledBy::Probe));
        assert_eq!(health.take_due(Instant::now() + PROBE_EVERY / 2), []);
        // A stream's dial postpones the probe.
        health.known.lock().shares.get_mut(&share).unwrap().probe_at = Instant::now();
        assert!(!health.record((share, generation), Ok(()), DialledBy::Stream));
        assert_eq!(health.take_due(Instant::now() + PROBE_EVERY / 2), []);
        let refusal = StreamRefusal { reason: RefusalReason::ConnectionRefused, text: "no".to_owned() };
        assert_eq!(health.take_due(Instant::now() + PROBE_EVERY), [(share, generation)]);
        assert_eq!(health.take_due(far), [], "one probe at a time");
        assert!(
            health.record((share, generation), Err(&refusal), DialledBy::Probe),
            "the probe continues while its dials fail"
        );
        assert_eq!(health.take_due(far), []);
    }
}
