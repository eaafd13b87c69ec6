//! The reachability of targets, reported to the gateways when it changes: to each gateway that assigns a share of the target.
//!
//! A target counts as reachable until a dial fails. Dials of streams count like probes. Invariants: shares with the same
//! target have one state and one probe, whichever gateways assign them; a target that streams use is not probed while it acknowledges what they send; while no client connects, the pause between
//! probes of a reachable target doubles.

mod target_in_use;
mod target_log;
mod target_state;

pub(crate) use {target_in_use::TargetInUse, target_state::DialledBy};

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::Arc,
    time::Duration,
};
use target_log::log;
use target_state::TargetState;
use tokio::{sync::Notify, time::Instant};
use wicketgate_model::{GatewayId, ShareId, Target};
use wicketgate_system::Mutex;
use wicketgate_transport::{
    control::{FromAgent, TargetHealth},
    frame::{RefusalReason, StreamRefusal},
};

#[derive(Default)]
pub(crate) struct TargetHealths {
    known: Mutex<Known>,
    /// A probe may be due earlier than [`TargetHealths::next_due`] has said.
    pub(crate) rescheduled: Notify,
}

#[derive(Default)]
struct Known {
    shares: HashMap<ShareId, Watched>,
    /// Those of shares, and those that streams still use. They outlive a control connection.
    targets: HashMap<Target, TargetState>,
    gateways: HashMap<GatewayId, Reported>,
}

/// What is reported to a gateway, and what it wants to be probed.
#[derive(Default)]
struct Reported {
    unreported: BTreeSet<ShareId>,
    /// Those of the last connection.
    former_duties: BTreeSet<ShareId>,
    /// The gateway says which targets to probe.
    assigns_duties: bool,
    /// Its control connection is up: it wants no probes while it is not.
    is_connected: bool,
    /// Something is unreported.
    changed: Arc<Notify>,
}

impl Reported {
    fn report(&mut self, share: ShareId) {
        self.unreported.insert(share);
        self.changed.notify_one();
    }
}

/// A share's target, and how the share wants it to be probed.
pub(crate) struct Watched {
    target: Target,
    /// At first between two probes; `None`: it is not probed.
    interval: Option<Duration>,
    /// The share's.
    name: Option<String>,
    /// The gateways that assign it, and whether the agent is their prober of the target.
    by: BTreeMap<GatewayId, bool>,
}

impl Watched {
    pub(crate) fn new(target: Target, interval: Option<Duration>, name: Option<String>) -> Self {
        Self { target, interval, name, by: BTreeMap::new() }
    }
}

impl TargetHealths {
    /// A new connection to a gateway starts without shares. What is known of targets remains, so that they are not probed
    /// again. Returns what tells the connection's task of changes.
    pub(crate) fn connected(&self, gateway: GatewayId, assigns_duties: bool) -> Arc<Notify> {
        let mut known = self.known.lock();
        known.targets.retain(|_, state| !state.shares.is_empty() || state.is_in_use());
        let former_duties = known.detach_all(gateway);
        let reported = known.gateways.entry(gateway).or_default();
        let changed = Arc::clone(&reported.changed);
        *reported = Reported {
            former_duties,
            assigns_duties,
            is_connected: true,
            changed: Arc::clone(&changed),
            unreported: BTreeSet::new(),
        };
        changed
    }

    /// The connection to the gateway is over: nothing is probed for it.
    pub(crate) fn disconnected(&self, gateway: GatewayId) {
        if let Some(reported) = self.known.lock().gateways.get_mut(&gateway) {
            reported.is_connected = false;
        }
        self.rescheduled.notify_one();
    }

    /// The gateway is none of the environment's any more.
    pub(crate) fn forget(&self, gateway: GatewayId) {
        let mut known = self.known.lock();
        known.detach_all(gateway);
        known.gateways.remove(&gateway);
        known.targets.retain(|_, state| !state.shares.is_empty() || state.is_in_use());
    }

    /// Adds a share that the gateway assigns, or replaces it.
    pub(crate) fn add(&self, (gateway, share): (GatewayId, ShareId), watched: Watched, now: Instant) {
        let mut known = self.known.lock();
        let old = known.shares.get(&share);
        // What another gateway has led to is known.
        let is_same = old.is_some_and(|old| old.target == watched.target && !old.by.contains_key(&gateway));
        let mut by = old.map(|old| old.by.clone()).unwrap_or_default();
        let assigns_duties = known.gateways.get(&gateway).is_some_and(|reported| reported.assigns_duties);
        by.entry(gateway).or_insert(!assigns_duties);
        if !is_same {
            known.detach(share);
        }
        let state = known.targets.entry(watched.target.clone()).or_insert_with(|| TargetState::new(now));
        state.shares.insert(share);
        let fails = state.failure.is_some();
        if fails {
            state.probe_at = now;
        }
        known.shares.insert(share, Watched { by, ..watched });
        if fails && let Some(reported) = known.gateways.get_mut(&gateway) {
            reported.report(share);
        }
        drop(known);
        self.rescheduled.notify_one();
    }

    /// The gateway does not assign the share any more.
    pub(crate) fn withdraw(&self, gateway: GatewayId, share: ShareId) {
        let mut known = self.known.lock();
        let Some(watched) = known.shares.get_mut(&share) else { return };
        watched.by.remove(&gateway);
        if watched.by.is_empty() {
            known.detach(share);
        }
    }

    /// Sets of which shares the targets are probed for the gateway while they are not in use.
    pub(crate) fn duty(&self, gateway: GatewayId, (on, off): (&[ShareId], &[ShareId]), now: Instant) {
        let mut known = self.known.lock();
        let Known { shares, targets, gateways } = &mut *known;
        let Some(reported) = gateways.get_mut(&gateway) else { return };
        for (share, duty) in on.iter().map(|s| (s, true)).chain(off.iter().map(|s| (s, false))) {
            let Some(watched) = shares.get_mut(share) else { continue };
            let has_one = watched.by.values().any(|duty| *duty);
            let Some(own) = watched.by.get_mut(&gateway) else { continue };
            let is_new = duty && !has_one && !reported.former_duties.remove(share);
            *own = duty;
            if is_new && let Some(state) = targets.get_mut(&watched.target) {
                state.begin_duty(watched.interval.unwrap_or_default(), now);
            }
        }
        drop(known);
        self.rescheduled.notify_one();
    }

    /// Counts a stream of the target until the returned value is dropped.
    pub(crate) fn in_use(&self, target: Target) -> TargetInUse<'_> {
        let mut known = self.known.lock();
        // Its share may have been withdrawn during the dial, and may come back.
        known
            .targets
            .entry(target.clone())
            .or_insert_with(|| TargetState::new(Instant::now()))
            .stream_began();
        drop(known);
        TargetInUse::new(self, target)
    }

    /// Changes that were not reported to the gateway yet.
    pub(crate) fn take_unreported(&self, gateway: GatewayId) -> Vec<FromAgent> {
        let mut known = self.known.lock();
        let Some(reported) = known.gateways.get_mut(&gateway) else { return Vec::new() };
        let unreported = mem::take(&mut reported.unreported).into_iter();
        unreported.filter_map(|share| known.report(share)).collect()
    }

    /// How many shares there are, and of how many the target is not reached.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let known = self.known.lock();
        let failing = known.targets.values().filter(|state| state.failure.is_some());
        (known.shares.len(), failing.map(|state| state.shares.len()).sum())
    }

    /// Records the result of a dial.
    pub(crate) fn record(
        &self,
        target: &Target,
        dialled: Result<(), &StreamRefusal>,
        by: DialledBy,
        now: Instant,
    ) {
        let mut known = self.known.lock();
        let interval = known.interval(target);
        let Known { shares, targets, gateways } = &mut *known;
        let Some(state) = targets.get_mut(target) else { return };
        let failure = dialled.err();
        if state.failure.as_ref() != failure {
            for share in &state.shares {
                let Some(watched) = shares.get(share) else { continue };
                let name = watched.name.as_deref().unwrap_or_default();
                log((*share, name, target), state.failure.as_ref(), failure);
                for gateway in watched.by.keys() {
                    if let Some(reported) = gateways.get_mut(gateway) {
                        reported.report(*share);
                    }
                }
            }
        }
        state.dialled(failure.cloned(), by, interval.unwrap_or_default(), now);
        drop(known);
        self.rescheduled.notify_one();
    }

    /// A stream's bytes are not acknowledged, or were not until a moment ago.
    pub(crate) fn is_doubted(&self, target: &Target) -> bool {
        self.known.lock().targets.get(target).is_some_and(TargetState::is_doubted)
    }

    /// Targets that are due for a probe. The caller probes them.
    pub(crate) fn take_due(&self, now: Instant) -> Vec<Target> {
        let mut known = self.known.lock();
        let due: Vec<_> =
            known.probed().filter(|(_, state)| state.probe_at <= now).map(|(t, _)| t.clone()).collect();
        for target in &due {
            if let Some(state) = known.targets.get_mut(target) {
                state.probing = true;
            }
        }
        due
    }

    /// When the next target is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.known.lock().probed().map(|(_, state)| state.probe_at).min()
    }
}

impl Known {
    /// Forgets what this gateway assigns, but not what is known of the targets. Returns of which shares it had given the duty.
    fn detach_all(&mut self, gateway: GatewayId) -> BTreeSet<ShareId> {
        let (mut duties, targets) = (BTreeSet::new(), &mut self.targets);
        self.shares.retain(|share, watched| {
            if watched.by.remove(&gateway).unwrap_or(false) {
                duties.insert(*share);
            }
            if watched.by.is_empty()
                && let Some(state) = targets.get_mut(&watched.target)
            {
                state.shares.remove(share);
            }
            !watched.by.is_empty()
        });
        duties
    }

    /// Whether one of the gateways that assign the share is connected; `duty`: and has made the agent its prober.
    fn is_wanted(&self, watched: &Watched, duty: bool) -> bool {
        let is_connected = |gateway| self.gateways.get(gateway).is_some_and(|reported| reported.is_connected);
        watched.by.iter().any(|(gateway, on)| (*on || !duty) && is_connected(gateway))
    }

    fn detach(&mut self, share: ShareId) {
        let Some(Watched { target, .. }) = self.shares.remove(&share) else { return };
        if let Some(state) = self.targets.get_mut(&target) {
            state.shares.remove(&share);
        }
        self.forget_unused(&target);
    }

    fn forget_unused(&mut self, target: &Target) {
        if self.targets.get(target).is_some_and(|state| state.shares.is_empty() && !state.is_in_use()) {
            self.targets.remove(target);
        }
    }

    /// Targets that are probed when their time comes.
    fn probed(&self) -> impl Iterator<Item = (&Target, &TargetState)> {
        self.targets.iter().filter(|(_, state)| {
            let shares = || state.shares.iter().filter_map(|share| self.shares.get(share));
            let is_wanted = match &state.failure {
                // Also by an agent that has no duty: it reports that the target is back.
                Some(_) => shares().any(|w| w.interval.is_some() && self.is_wanted(w, false)),
                None => {
                    let is_probed =
                        |w: &Watched| w.interval.is_some() && self.is_wanted(w, !state.is_doubted());
                    (!state.is_in_use() || state.is_doubted()) && shares().any(is_probed)
                }
            };
            is_wanted && !state.probing
        })
    }

    /// The shortest that a share of the target wants.
    fn interval(&self, target: &Target) -> Option<Duration> {
        let shares = self.targets.get(target).into_iter().flat_map(|state| &state.shares);
        shares.filter_map(|share| self.shares.get(share)?.interval).min()
    }

    fn report(&self, share: ShareId) -> Option<FromAgent> {
        let failure = &self.targets.get(&self.shares.get(&share)?.target)?.failure;
        let health = match failure {
            None => TargetHealth::Ok,
            Some(refusal) => TargetHealth::Unreachable(refusal.text.clone()),
        };
        let agent_exhausted = failure.as_ref().is_some_and(|r| r.reason == RefusalReason::AgentExhausted);
        Some(FromAgent::Health { share, health, agent_exhausted, cause: failure.clone() })
    }
}

#[cfg(test)]
mod tests;
