//! What is known of one target, and when it is probed next.

use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;
use wicketgate_model::ShareId;
use wicketgate_system::backoff::spread;
use wicketgate_transport::{control::rest_of, frame::StreamRefusal};

/// The shortest and the longest pause between probes of a target that fails.
const FAILING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The longest pause between probes of a reachable target that no client uses.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Who has dialled a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DialledBy {
    Stream,
    Probe,
}

pub(super) struct TargetState {
    /// Those that the gateway assigns at present.
    pub(super) shares: BTreeSet<ShareId>,
    /// Of the last dial, if it failed.
    pub(super) failure: Option<StreamRefusal>,
    pub(super) probing: bool,
    /// When the next probe is due, if the target is probed.
    pub(super) probe_at: Instant,
    streams: usize,
    /// A stream's bytes were not acknowledged, and there was no dial since.
    is_doubted: bool,
    /// A dial has succeeded.
    was_reached: bool,
    /// Before the next probe. Probes in a row with the same result double it.
    pause: Duration,
    /// The first pause, of the last dial.
    interval: Duration,
}

impl TargetState {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            shares: BTreeSet::new(),
            failure: None,
            probing: false,
            probe_at: now,
            streams: 0,
            is_doubted: false,
            was_reached: false,
            pause: Duration::ZERO,
            interval: Duration::ZERO,
        }
    }

    pub(super) fn is_in_use(&self) -> bool {
        self.streams > 0
    }

    pub(super) fn is_doubted(&self) -> bool {
        self.is_doubted
    }

    pub(super) fn stream_began(&mut self) {
        self.streams += 1;
    }

    pub(super) fn stream_ended(&mut self, now: Instant, is_lost: bool) {
        self.streams = self.streams.saturating_sub(1);
        self.is_doubted |= is_lost;
        if !self.is_in_use() && self.failure.is_none() {
            self.probe_after(if self.is_doubted { Duration::ZERO } else { self.interval }, now);
        }
    }

    /// A stream's bytes are not acknowledged, or they are again: the target is probed at once.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.is_doubted = true;
        self.probe_at = now;
    }

    /// The agent becomes the target's prober: clients have used it through any agent until a while ago, or its prober has
    /// failed.
    pub(super) fn begin_duty(&mut self, interval: Duration, now: Instant) {
        if self.was_reached && self.failure.is_none() {
            self.probe_after(interval.saturating_sub(rest_of(interval)), now);
            self.pause = interval;
        }
    }

    pub(super) fn dialled(
        &mut self,
        failure: Option<StreamRefusal>,
        by: DialledBy,
        interval: Duration,
        now: Instant,
    ) {
        let is_first = self.failure.is_some() != failure.is_some();
        let (least, most) = if failure.is_some() { FAILING } else { (interval, LONGEST) };
        self.interval = interval;
        self.was_reached |= failure.is_none();
        (self.failure, self.is_doubted) = (failure, false);
        match by {
            DialledBy::Probe => {
                self.probing = false;
                let doubled = if is_first { least } else { (2 * self.pause).clamp(least, most) };
                self.probe_after(doubled, now);
            }
            // The failing target keeps its next probe.
            DialledBy::Stream if self.failure.is_some() && !is_first => {}
            DialledBy::Stream => self.probe_after(least, now),
        }
    }

    fn probe_after(&mut self, pause: Duration, now: Instant) {
        self.pause = pause;
        self.probe_at = now + spread(pause);
    }
}
