//! The reachability of targets, reported to the gateway when it changes.
//!
//! A target counts as reachable until a dial fails. Dials of streams count like probes. Invariants: shares with the same
//! target have one state and one probe; a target that streams use is not probed while it acknowledges what they send; while no client connects, the pause between
//! probes of a reachable target doubles.

mod target_in_use;
mod target_log;
mod target_state;

pub(crate) use {target_in_use::TargetInUse, target_state::DialledBy};

use std::{
    collections::{BTreeSet, HashMap},
    mem,
    time::Duration,
};
use target_log::log;
use target_state::TargetState;
use tokio::{sync::Notify, time::Instant};
use wicketgate_model::{ShareId, Target};
use wicketgate_system::Mutex;
use wicketgate_transport::{
    control::{FromAgent, TargetHealth},
    frame::{RefusalReason, StreamRefusal},
};

#[derive(Default)]
pub(crate) struct TargetHealths {
    known: Mutex<Known>,
    pub(crate) changed: Notify,
    /// A probe may be due earlier than [`TargetHealths::next_due`] has said.
    pub(crate) rescheduled: Notify,
}

#[derive(Default)]
struct Known {
    shares: HashMap<ShareId, Watched>,
    /// Those of shares, and those that streams still use. They outlive a control connection.
    targets: HashMap<Target, TargetState>,
    unreported: BTreeSet<ShareId>,
    /// Those of the last connection.
    former_duties: BTreeSet<ShareId>,
    /// The gateway says which targets to probe.
    duties_are_assigned: bool,
}

/// A share's target, and how the share wants it to be probed.
pub(crate) struct Watched {
    target: Target,
    /// At first between two probes; `None`: it is not probed.
    interval: Option<Duration>,
    /// The share's.
    name: Option<String>,
    duty: bool,
}

impl Watched {
    pub(crate) fn new(target: Target, interval: Option<Duration>, name: Option<String>) -> Self {
        Self { target, interval, name, duty: false }
    }
}

impl TargetHealths {
    /// A new gateway connection starts without shares. What is known of targets remains, so that they are not probed
    /// again.
    pub(crate) fn connected(&self, assigns_duties: bool) {
        let mut known = self.known.lock();
        known.targets.retain(|_, state| !mem::take(&mut state.shares).is_empty() || state.is_in_use());
        for state in known.targets.values_mut() {
            // Probes end with the connection.
            state.probing = false;
        }
        let shares = mem::take(&mut known.shares).into_iter();
        known.former_duties = shares.filter(|(_, watched)| watched.duty).map(|(share, _)| share).collect();
        known.unreported.clear();
        known.duties_are_assigned = assigns_duties;
    }

    /// Adds a share, or replaces it.
    pub(crate) fn add(&self, share: ShareId, watched: Watched, now: Instant) {
        let mut known = self.known.lock();
        let duty = known.shares.get(&share).map_or(!known.duties_are_assigned, |old| old.duty);
        known.detach(share);
        let state = known.targets.entry(watched.target.clone()).or_insert_with(|| TargetState::new(now));
        state.shares.insert(share);
        let fails = state.failure.is_some();
        if fails {
            state.probe_at = now;
        }
        known.shares.insert(share, Watched { duty, ..watched });
        if fails {
            known.unreported.insert(share);
            self.changed.notify_one();
        }
        drop(known);
        self.rescheduled.notify_one();
    }

    pub(crate) fn withdraw(&self, share: ShareId) {
        self.known.lock().detach(share);
    }

    /// Sets which shares' targets are probed while they are not in use.
    pub(crate) fn duty(&self, on: &[ShareId], off: &[ShareId], now: Instant) {
        let mut known = self.known.lock();
        let Known { shares, targets, former_duties, .. } = &mut *known;
        for (share, duty) in on.iter().map(|s| (s, true)).chain(off.iter().map(|s| (s, false))) {
            let Some(watched) = shares.get_mut(share) else { continue };
            let is_new = duty && !watched.duty && !former_duties.remove(share);
            if is_new && let Some(state) = targets.get_mut(&watched.target) {
                state.begin_duty(watched.interval.unwrap_or_default(), now);
            }
            watched.duty = duty;
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
    pub(crate) fn take_unreported(&self) -> Vec<FromAgent> {
        let mut known = self.known.lock();
        let unreported = mem::take(&mut known.unreported).into_iter();
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
        let Known { shares, targets, unreported, .. } = &mut *known;
        let Some(state) = targets.get_mut(target) else { return };
        let failure = dialled.err();
        if state.failure.as_ref() != failure {
            for share in &state.shares {
                let name = shares.get(share).and_then(|watched| watched.name.as_deref()).unwrap_or_default();
                log((*share, name, target), state.failure.as_ref(), failure);
            }
            unreported.extend(&state.shares);
            self.changed.notify_one();
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
                Some(_) => shares().any(|watched| watched.interval.is_some()),
                None => {
                    let is_probed = |w: &Watched| (w.duty || state.is_doubted()) && w.interval.is_some();
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
mod tests {
    use super::*;
    use wicketgate_transport::{control::rest_of, relay::Acknowledgements as _};

    const INTERVAL: Duration = Duration::from_secs(30);

    struct Scene {
        healths: TargetHealths,
        now: Instant,
    }

    fn share(n: u128) -> ShareId {
        format!("shr-{n:032x}").parse().unwrap()
    }

    fn target() -> Target {
        "10.0.0.1:3306".parse().unwrap()
    }

    fn watched(interval: Option<Duration>) -> Watched {
        Watched::new(target(), interval, Some("app-db".to_owned()))
    }

    fn refusal() -> StreamRefusal {
        StreamRefusal { reason: RefusalReason::ConnectionRefused, text: "no".to_owned() }
    }

    impl Scene {
        /// A gateway that assigns duties, and `shares` shares of one target.
        fn new(shares: u128, interval: Option<Duration>) -> Self {
            let scene = Self { healths: TargetHealths::default(), now: Instant::now() };
            scene.healths.connected(true);
            for n in 0..shares {
                scene.healths.add(share(n), watched(interval), scene.now);
            }
            scene
        }

        fn on_duty(self, shares: u128) -> Self {
            self.healths.duty(&(0..shares).map(share).collect::<Vec<_>>(), &[], self.now);
            self
        }

        fn record(&self, dialled: Result<(), &StreamRefusal>, by: DialledBy) {
            self.healths.record(&target(), dialled, by, self.now);
        }

        /// The number of probes in a time in which the target answers each.
        fn probes_in(&mut self, time: Duration) -> usize {
            let end = self.now + time;
            let mut probes = 0;
            while let Some(next) = self.healths.next_due().filter(|next| *next <= end) {
                self.now = next;
                probes += self.healths.take_due(self.now).len();
                self.record(Ok(()), DialledBy::Probe);
            }
            self.now = end;
            probes
        }
    }

    #[test]
    fn an_idle_target_is_probed_a_few_times_and_not_hundreds() {
        let mut scene = Scene::new(3, Some(INTERVAL)).on_duty(3);
        let probes = scene.probes_in(100 * INTERVAL);
        assert!((2..12).contains(&probes), "{probes} probes of one target of three shares");
        // A day at most between two.
        let more = scene.probes_in(Duration::from_secs(30 * 24 * 3600));
        assert!((15..60).contains(&more), "{more} probes in a month");
        // A client's connection begins the pauses again.
        scene.record(Ok(()), DialledBy::Stream);
        assert!((1..=2).contains(&scene.probes_in(2 * INTERVAL)));
    }

    #[test]
    fn an_agent_without_the_duty_does_not_probe_and_one_whose_dial_failed_does() {
        let mut scene = Scene::new(1, Some(INTERVAL));
        assert_eq!(scene.probes_in(100 * INTERVAL), 0);
        scene.record(Err(&refusal()), DialledBy::Stream);
        assert_eq!(scene.healths.take_unreported().len(), 1, "at once");
        assert_eq!(scene.probes_in(INTERVAL), 1, "until it is back");
        assert_eq!(scene.healths.take_unreported().len(), 1);
        let mut scene = Scene::new(1, None).on_duty(1);
        scene.record(Err(&refusal()), DialledBy::Stream);
        assert_eq!(scene.probes_in(100 * INTERVAL), 0, "the share wants none");
        scene.record(Ok(()), DialledBy::Stream);
        let healed = scene.healths.take_unreported();
        assert!(matches!(&healed[..], [FromAgent::Health { health: TargetHealth::Ok, .. }]));
    }

    #[test]
    fn a_target_in_use_is_not_probed() {
        let mut scene = Scene::new(2, Some(INTERVAL)).on_duty(2);
        assert_eq!(scene.healths.take_due(scene.now), [target()], "shares of a target have one probe");
        assert_eq!(scene.healths.take_due(scene.now), []);
        scene.record(Ok(()), DialledBy::Probe);
        let (stream, now) = (scene.healths.in_use(target()), scene.now);
        assert_eq!(scene.healths.next_due(), None);
        assert_eq!(scene.healths.take_due(now + 1000 * INTERVAL), []);
        drop(stream);
        assert!(scene.healths.next_due().unwrap() > now + INTERVAL / 4, "it was alive a moment ago");
        scene.healths.duty(&[], &[share(0), share(1)], now);
        let mut stream = scene.healths.in_use(target());
        stream.lost();
        drop(stream);
        assert_eq!(scene.healths.take_due(Instant::now()), [target()], "it did not answer");
        scene.record(Ok(()), DialledBy::Probe);
        assert_eq!(scene.healths.next_due(), None);
        let silent = scene.healths.in_use(target());
        silent.stopped_or_resumed();
        assert_eq!(scene.healths.take_due(Instant::now()), [target()], "although it is in use");
        assert!(scene.healths.is_doubted(&target()));
        scene.record(Ok(()), DialledBy::Probe);
        assert!(!scene.healths.is_doubted(&target()));
        assert_eq!(scene.healths.next_due(), None);
        silent.stopped_or_resumed();
        assert_eq!(scene.healths.take_due(Instant::now()), [target()]);
        scene.record(Err(&refusal()), DialledBy::Probe);
        scene.healths.take_due(scene.now + 2 * INTERVAL);
        scene.record(Err(&refusal()), DialledBy::Probe);
        silent.stopped_or_resumed();
        assert_eq!(scene.healths.take_due(Instant::now()), [target()], "it may be back");
        scene.record(Ok(()), DialledBy::Probe);
        drop(silent);
        scene.healths.duty(&[share(0), share(1)], &[], now);
        scene.now += INTERVAL;
        assert!(scene.probes_in(INTERVAL) > 0);
    }

    #[test]
    fn a_target_that_clients_have_left_is_probed_within_its_interval() {
        for interval in [1, 3, 30, 3600].map(Duration::from_secs) {
            let mut scene = Scene::new(1, Some(interval));
            scene.healths.duty(&[], &[share(0)], scene.now);
            // The stream goes through any agent. The gateway gives the duty when no client has used the share for this time.
            scene.record(Ok(()), DialledBy::Stream);
            drop(scene.healths.in_use(target()));
            let left = scene.now;
            scene.now += rest_of(interval);
            scene.healths.duty(&[share(0)], &[], scene.now);
            let due = scene.healths.next_due().unwrap() - left;
            let most = interval.max(rest_of(interval));
            assert!((interval / 2..=most).contains(&due), "{due:?} of {interval:?}");
            scene.now = left + due;
            assert_eq!(scene.healths.take_due(scene.now).len(), 1);
            scene.record(Ok(()), DialledBy::Probe);
            assert!(scene.healths.next_due().unwrap() - scene.now > interval);
        }
    }

    #[test]
    fn each_stream_of_a_target_counts_once_while_its_share_comes_and_goes() {
        let scene = Scene::new(0, None);
        let first = scene.healths.in_use(target());
        scene.healths.add(share(0), watched(Some(INTERVAL)), scene.now);
        scene.healths.duty(&[share(0)], &[], scene.now);
        let second = scene.healths.in_use(target());
        drop(first);
        assert_eq!(scene.healths.next_due(), None, "the second one uses it");
        scene.healths.withdraw(share(0));
        drop(second);
        assert!(scene.healths.known.lock().targets.is_empty());
    }

    #[test]
    fn a_new_connection_to_the_gateway_probes_nothing_again_and_reports_what_fails() {
        let mut scene = Scene::new(1, Some(INTERVAL)).on_duty(1);
        scene.probes_in(100 * INTERVAL);
        let again = |scene: &Scene| {
            scene.healths.connected(true);
            scene.healths.add(share(0), watched(Some(INTERVAL)), scene.now);
            scene.healths.duty(&[share(0)], &[], scene.now);
        };
        again(&scene);
        assert_eq!(scene.healths.take_due(scene.now), []);
        scene.record(Err(&refusal()), DialledBy::Stream);
        assert_eq!(scene.healths.take_unreported().len(), 1);
        again(&scene);
        assert_eq!(scene.healths.take_unreported().len(), 1);
        assert_eq!(scene.healths.take_due(scene.now), [target()]);
        // Without duties from the gateway, the agent probes by itself.
        let alone = TargetHealths::default();
        alone.connected(false);
        alone.add(share(0), watched(Some(INTERVAL)), scene.now);
        assert_eq!(alone.take_due(scene.now), [target()]);
    }
}
