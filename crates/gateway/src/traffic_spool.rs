//! Traffic that waits for being reported, and recorded.
//!
//! Invariants: what was carried is in one report, whose content does not change once it is sent. Reports are sent in the order of
//! their numbers, each when the one before is recorded: so a server never merges two, and a slow database makes traffic late and
//! loses none of it while the gateway runs. What waits has a bound.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use jiff::Timestamp;
use tokio::sync::Notify;
use uuid::Uuid;
use wicketgate_link::{LinkReceiver, ToGateway, UNRECORDED_REPORTS};
use wicketgate_model::{ShareId, SpooledTraffic, TrafficDelta, TunnelId};
use wicketgate_system::Mutex;

/// What waits is reported for each so many seconds: the finest step in which the server keeps traffic.
const STEP: i64 = 10;
/// Steps that wait, of ten minutes, beside the report under way. Later traffic is counted at the last of them.
const STEPS: usize = UNRECORDED_REPORTS - 1;
/// Deltas that wait, of a few hundred bytes each. Beyond them, too, traffic is counted at the last step.
const MOST: usize = 100_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct TrafficSpool {
    id: Uuid,
    inner: Mutex<Inner>,
    recorded: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// The oldest first.
    waiting: VecDeque<Step>,
    /// Of the last report that was sent.
    number: u64,
    /// It is sent, and not recorded yet.
    under_way: Option<Arc<SpooledTraffic>>,
}

#[derive(Debug)]
struct Step {
    at: Timestamp,
    deltas: BTreeMap<(ShareId, TunnelId), TrafficDelta>,
}

impl Default for TrafficSpool {
    fn default() -> Self {
        Self { id: Uuid::now_v7(), inner: Mutex::default(), recorded: Notify::new() }
    }
}

impl TrafficSpool {
    /// Takes in what was carried until `at`.
    pub(crate) fn add(&self, deltas: Vec<TrafficDelta>, at: Timestamp) {
        if deltas.is_empty() {
            return;
        }
        let waiting = &mut self.inner.lock().waiting;
        let is_full =
            waiting.len() >= STEPS || waiting.iter().map(|step| step.deltas.len()).sum::<usize>() >= MOST;
        let is_same = |step: &Step| step_of(step.at) == step_of(at);
        if waiting.back().is_none_or(|last| !is_full && !is_same(last)) {
            waiting.push_back(Step { at, deltas: BTreeMap::new() });
        }
        let Some(last) = waiting.back_mut() else { return };
        for delta in deltas {
            let new = || TrafficDelta::new(delta.share, delta.tunnel);
            last.deltas.entry((delta.share, delta.tunnel)).or_insert_with(new).add(delta);
        }
    }

    /// The next report to send, if the one before is recorded.
    pub(crate) fn next(&self) -> Option<Arc<SpooledTraffic>> {
        let mut inner = self.inner.lock();
        if inner.under_way.is_some() { None } else { inner.take(self.id) }
    }

    /// The report under way, to be sent again on a new link: who has recorded it knows its number.
    pub(crate) fn again(&self) -> Option<Arc<SpooledTraffic>> {
        self.inner.lock().under_way.clone()
    }

    /// All that waits: the gateway stops, and hears no answers any more.
    pub(crate) fn rest(&self) -> Vec<Arc<SpooledTraffic>> {
        let mut inner = self.inner.lock();
        std::iter::from_fn(|| inner.take(self.id)).collect()
    }

    /// The server has recorded the report.
    pub(crate) fn recorded(&self, spool: Uuid, number: u64) {
        let mut inner = self.inner.lock();
        if spool == self.id
            && number == inner.number
            && inner.under_way.take().is_some()
            && !inner.waiting.is_empty()
        {
            self.recorded.notify_one();
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
        let Step { at, deltas } = self.waiting.pop_front()?;
        self.number += 1;
        let deltas = deltas.into_values().collect();
        let report = Arc::new(SpooledTraffic { spool, number: self.number, at, deltas });
        self.under_way = Some(Arc::clone(&report));
        Some(report)
    }
}

fn step_of(at: Timestamp) -> i64 {
    at.as_second().div_euclid(STEP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::ToSpan as _;
    use proptest::{collection::vec, prelude::*};
    use wicketgate_model::FailureReason;

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn delta(share: u8, rx: u64) -> TrafficDelta {
        let share = ShareId::new(Uuid::from_u128(share.into()));
        let failures = [(FailureReason::NoAgent, rx)].into();
        TrafficDelta { rx, failures, active: rx, ..TrafficDelta::new(share, TunnelId::new(Uuid::nil())) }
    }

    fn received(report: &SpooledTraffic) -> u64 {
        report.deltas.iter().map(|delta| delta.rx).sum()
    }

    #[test]
    fn what_waits_is_summed_up_for_each_ten_seconds_and_has_a_bound() {
        let spool = TrafficSpool::default();
        // A report is under way for an hour.
        spool.add(vec![delta(1, 1)], start());
        let first = spool.next().unwrap();
        assert_eq!((first.number, received(&first)), (1, 1));
        for second in 0..3600_i64 {
            spool.add(vec![delta(1, 1), delta(2, 2)], start() + second.seconds());
            assert_eq!(spool.next(), None);
        }
        let (mut last, mut sum) = (1, 0);
        spool.recorded(spool.id, last);
        while let Some(report) = spool.next() {
            assert_eq!((report.number, report.deltas.len()), (last + 1, 2));
            let step = i64::try_from(last - 1).unwrap() * STEP;
            assert_eq!(report.at, start() + step.seconds());
            last = report.number;
            sum += received(&report);
            assert_eq!(report.deltas[1].active, 2);
            assert_eq!(report.deltas[1].failed(), report.deltas[1].rx);
            spool.recorded(spool.id, last);
        }
        assert_eq!((usize::try_from(last).unwrap(), sum), (STEPS + 1, 3 * 3600));
    }

    #[test]
    fn very_many_shares_wait_in_one_step() {
        let spool = TrafficSpool::default();
        let all = || {
            (0..u32::try_from(MOST).unwrap()).map(|n| {
                let share = ShareId::new(Uuid::from_u128(n.into()));
                TrafficDelta { rx: 1, ..TrafficDelta::new(share, TunnelId::new(Uuid::nil())) }
            })
        };
        for second in [0, 10, 20] {
            spool.add(all().collect(), start() + second.seconds());
        }
        assert_eq!(spool.rest().iter().map(|report| received(report)).collect::<Vec<_>>(), [3 * MOST as u64]);
    }

    #[derive(Debug, Clone)]
    enum Act {
        Add(u8, u64),
        Pass(i64),
        Send,
        /// The answer to the last report, or to one so much before it.
        Record(u64),
        /// The answer to a report of an earlier run.
        RecordOther,
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            4 => (0u8..3, 1u64..100).prop_map(|(share, rx)| Act::Add(share, rx)),
            2 => (1i64..40).prop_map(Act::Pass),
            4 => Just(Act::Send),
            3 => (0u64..2).prop_map(Act::Record),
            1 => Just(Act::RecordOther),
        ]
    }

    proptest! {
        #[test]
        fn every_byte_is_in_one_report_and_one_report_is_under_way(acts in vec(act(), 0..200)) {
            let (spool, mut now) = (TrafficSpool::default(), start());
            let (mut added, mut sent, mut number, mut is_recorded) = (0, 0, 0, true);
            for act in acts {
                match act {
                    Act::Add(share, rx) => {
                        spool.add(vec![delta(share, rx)], now);
                        added += rx;
                    }
                    Act::Pass(seconds) => now += seconds.seconds(),
                    Act::Send => {
                        let Some(report) = spool.next() else { continue };
                        prop_assert!(is_recorded);
                        prop_assert_eq!(report.number, number + 1);
                        (number, is_recorded) = (report.number, false);
                        sent += received(&report);
                    }
                    Act::Record(before) => {
                        spool.recorded(spool.id, number.wrapping_sub(before));
                        is_recorded |= before == 0;
                    }
                    Act::RecordOther => spool.recorded(Uuid::nil(), number),
                }
            }
            sent += spool.rest().iter().map(|report| received(report)).sum::<u64>();
            prop_assert_eq!(sent, added);
        }
    }
}
