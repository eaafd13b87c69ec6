//! Traffic that waits for being reported, and recorded.
//!
//! Invariants: what was carried is in one report, whose content does not change once it is sent. Reports are sent in the order of
//! their numbers, each when the one before is recorded: so a server never merges two, and a slow database makes traffic late and
//! loses none of it while the gateway runs. What waits has a bound. Steps have their numbers from their beginning: what a disk has of
//! one has the number under which it is sent, and steps that are joined have that of the last. So what was recorded after it was
//! written to the disk is not counted again after a restart.

mod traffic_file;

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;
use wicketgate_link::{LinkReceiver, ToGateway, UNRECORDED_REPORTS};
use wicketgate_model::{ShareId, SpooledTraffic, TrafficDelta, TunnelId};
use wicketgate_system::Mutex;

/// What waits is reported for each so many seconds: the finest step in which the server keeps traffic.
const STEP: i64 = 10;
/// Steps that wait without a disk, of ten minutes, beside the report under way. Later traffic is counted at the last of them.
const STEPS: usize = UNRECORDED_REPORTS - 1;
/// Deltas that wait without a disk, of a few hundred bytes each. Beyond them, too, traffic is counted at the last step.
const MOST: usize = 100_000;
/// With a disk: for so many seconds, 6 hours, the server keeps the finest step. What is older is joined, for each [`COARSE`].
const FINE_FOR: i64 = 6 * 3600;
/// The server's next step, in seconds.
const COARSE: i64 = 300;
/// Deltas that wait with a disk, of one kilobyte each at most: 64 MiB.
const MOST_ON_DISK: usize = 1 << 16;
/// Numbers that a run may use beyond those that the disk has: one a second for eleven days.
const RESERVED: u64 = 1_000_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct TrafficSpool {
    id: Uuid,
    inner: Mutex<Inner>,
    recorded: Notify,
    /// Where it waits, too.
    file: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Of an earlier run, the oldest first. They are sent before the others, and do not change.
    earlier: VecDeque<Arc<SpooledTraffic>>,
    /// The oldest first.
    waiting: VecDeque<Step>,
    /// So many of them, the first ones, are joined.
    coarse: usize,
    /// Of the last step.
    number: u64,
    /// They are sent, and not recorded yet: one, until the gateway stops.
    under_way: VecDeque<Arc<SpooledTraffic>>,
}

#[derive(Debug)]
struct Step {
    number: u64,
    at: Timestamp,
    deltas: BTreeMap<(ShareId, TunnelId), TrafficDelta>,
}

impl Default for TrafficSpool {
    fn default() -> Self {
        Self { id: Uuid::now_v7(), inner: Mutex::default(), recorded: Notify::new(), file: None }
    }
}

/// What a disk has of a spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptTraffic {
    spool: Uuid,
    /// The run that has written this uses no number beyond it.
    last_number: u64,
    reports: Vec<Arc<SpooledTraffic>>,
}

impl TrafficSpool {
    /// Goes on with what another run has left.
    fn of(kept: KeptTraffic, file: PathBuf) -> Self {
        let KeptTraffic { spool, last_number, reports } = kept;
        let inner = Inner { earlier: reports.into(), number: last_number, ..Inner::default() };
        Self { id: spool, inner: Mutex::new(inner), recorded: Notify::new(), file: Some(file) }
    }

    /// What is not recorded yet.
    fn to_keep(&self) -> KeptTraffic {
        let inner = self.inner.lock();
        let sent = inner.under_way.iter().chain(&inner.earlier).cloned();
        let reports = sent.chain(inner.waiting.iter().map(|step| Arc::new(step.report(self.id)))).collect();
        KeptTraffic { spool: self.id, last_number: inner.number + RESERVED, reports }
    }

    /// When the oldest of what is not recorded was carried, and the number of the last step.
    fn state(&self) -> (Option<Timestamp>, u64) {
        let inner = self.inner.lock();
        let sent = inner.under_way.iter().chain(&inner.earlier).map(|report| report.at).next();
        (sent.or_else(|| inner.waiting.front().map(|step| step.at)), inner.number)
    }

    /// Takes in what was carried until `at`.
    pub(crate) fn add(&self, deltas: Vec<TrafficDelta>, at: Timestamp) {
        if deltas.is_empty() {
            return;
        }
        let (steps, most) = if self.file.is_some() { (usize::MAX, MOST_ON_DISK) } else { (STEPS, MOST) };
        let mut inner = self.inner.lock();
        let Inner { waiting, number, .. } = &mut *inner;
        let is_same = |step: &Step| step_of(step.at, STEP) == step_of(at, STEP);
        if waiting.back().is_none_or(|last| !is_same(last)) {
            let deltas: usize = waiting.iter().map(|step| step.deltas.len()).sum();
            if waiting.is_empty() || (waiting.len() < steps && deltas < most) {
                *number += 1;
                waiting.push_back(Step { number: *number, at, deltas: BTreeMap::new() });
            }
        }
        let Some(last) = waiting.back_mut() else { return };
        deltas.into_iter().for_each(|delta| last.add(delta));
        if self.file.is_some() {
            inner.join(at);
        }
    }

    /// The next report to send, if the one before is recorded.
    pub(crate) fn next(&self) -> Option<Arc<SpooledTraffic>> {
        let mut inner = self.inner.lock();
        if inner.under_way.is_empty() { inner.take(self.id) } else { None }
    }

    /// The report under way, to be sent again on a new link: who has recorded it knows its number.
    pub(crate) fn again(&self) -> Option<Arc<SpooledTraffic>> {
        self.inner.lock().under_way.front().cloned()
    }

    /// What waits, as much as a server takes: the gateway stops, and hears no answers any more. Without a disk, that is all.
    pub(crate) fn rest(&self) -> Vec<Arc<SpooledTraffic>> {
        let mut inner = self.inner.lock();
        std::iter::from_fn(|| inner.take(self.id)).take(STEPS).collect()
    }

    /// The server has recorded the report.
    pub(crate) fn recorded(&self, spool: Uuid, number: u64) {
        let mut inner = self.inner.lock();
        let is_recorded = |report: &Arc<SpooledTraffic>| report.spool == spool && report.number == number;
        if let Some(last) = inner.under_way.iter().position(is_recorded) {
            inner.under_way.drain(..=last);
            if !inner.waiting.is_empty() || !inner.earlier.is_empty() {
                self.recorded.notify_one();
            }
        }
    }

    /// Waits until the next report can be sent. Cancel-safe.
    pub(crate) async fn is_next_due(&self) {
        self.recorded.notified().await;
    }

    /// Hears the answers only, until the link ends.
    pub(crate) async fn hear(&self, messages: &mut LinkReceiver<ToGateway>) {
        while let Some(message) = messages.recv().await {
            if let ToGateway::TrafficRecorded { spool, number } = message {
                self.recorded(spool, number);
            }
        }
    }
}

impl Inner {
    fn take(&mut self, spool: Uuid) -> Option<Arc<SpooledTraffic>> {
        let report = self.earlier.pop_front().or_else(|| {
            let step = self.waiting.pop_front()?;
            self.coarse = self.coarse.saturating_sub(1);
            Some(Arc::new(step.report(spool)))
        })?;
        self.under_way.push_back(Arc::clone(&report));
        Some(report)
    }

    /// Joins steps that are older than the server's finest.
    fn join(&mut self, now: Timestamp) {
        let is_old = |step: &Step| now.as_second() - step.at.as_second() > FINE_FOR;
        while self.waiting.get(self.coarse).is_some_and(is_old) {
            let before = self.coarse.checked_sub(1).and_then(|before| self.waiting.get(before));
            let at = self.waiting.get(self.coarse).map(|step| step_of(step.at, COARSE));
            if before.map(|step| step_of(step.at, COARSE)) != at {
                self.coarse += 1;
                continue;
            }
            let Some(step) = self.waiting.remove(self.coarse) else { return };
            let Some(before) = self.waiting.get_mut(self.coarse - 1) else { return };
            before.number = step.number;
            step.deltas.into_values().for_each(|delta| before.add(delta));
        }
    }
}

impl Step {
    fn add(&mut self, delta: TrafficDelta) {
        let new = || TrafficDelta::new(delta.share, delta.tunnel);
        self.deltas.entry((delta.share, delta.tunnel)).or_insert_with(new).add(delta);
    }

    fn report(&self, spool: Uuid) -> SpooledTraffic {
        let Self { number, at, deltas } = self;
        SpooledTraffic { spool, number: *number, at: *at, deltas: deltas.values().cloned().collect() }
    }
}

fn step_of(at: Timestamp, seconds: i64) -> i64 {
    at.as_second().div_euclid(seconds)
}

#[cfg(test)]
mod tests;
