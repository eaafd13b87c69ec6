//! The traffic of shares: one set of series for each.
//!
//! Invariant: only shares that had traffic, and are not deleted, have series of their own, and at most [`SHARES`] of
//! them; the traffic of the others is added up under the label `other`.

use std::{collections::BTreeSet, fmt, sync::Arc};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric, counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use wicketgate_model::{DialTimes, FailureReason, ShareId, TrafficDelta};
use wicketgate_system::Mutex;

use crate::metric::{Labels, registered};

/// Each has some 20 lines in every scrape.
const SHARES: usize = 5000;
/// The label of all further shares.
const OTHER: &str = "other";

/// See the module.
#[derive(Debug)]
pub(super) struct ShareTraffic {
    /// Those that have series of their own.
    shares: Mutex<BTreeSet<ShareId>>,
    received: Family<Labels<1>, Counter>,
    sent: Family<Labels<1>, Counter>,
    connections: Family<Labels<1>, Counter>,
    failures: Family<Labels<2>, Counter>,
    active: Family<Labels<1>, Gauge>,
    dials: Family<Labels<1>, Dials>,
}

impl ShareTraffic {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let traffic = Self {
            shares: Mutex::default(),
            received: registered(registry, "share_received_bytes", "From remote sites to the share's target"),
            sent: registered(registry, "share_sent_bytes", "From the share's target to remote sites"),
            connections: registered(registry, "share_connections", "Connections that were opened"),
            failures: registered(registry, "share_failures", "Connections that could not be served"),
            active: registered(
                registry,
                "share_active_connections",
                "The most connections at one time, in the gateway's last report",
            ),
            dials: Family::default(),
        };
        registry.register_with_unit(
            "share_dial_duration",
            "From a connection's acceptance at the gateway to its target's",
            Unit::Seconds,
            traffic.dials.clone(),
        );
        traffic
    }

    pub(super) fn add(&self, deltas: &[TrafficDelta]) {
        let mut shares = self.shares.lock();
        for delta in deltas {
            let has_own = shares.contains(&delta.share) || {
                let room = shares.len() < SHARES;
                room && shares.insert(delta.share)
            };
            let share = if has_own { delta.share.to_string() } else { OTHER.to_owned() };
            for (reason, count) in &delta.failures {
                let labels = [("share", share.clone()), ("reason", reason.to_string())];
                self.failures.get_or_create(&labels).inc_by(*count);
            }
            let label = [("share", share)];
            self.received.get_or_create(&label).inc_by(delta.rx);
            self.sent.get_or_create(&label).inc_by(delta.tx);
            self.connections.get_or_create(&label).inc_by(delta.connections);
            self.dials.get_or_create(&label).add(&delta.dials);
            // What several shares have at a time is no sum of their peaks.
            if has_own {
                self.active.get_or_create(&label).set(i64::try_from(delta.active).unwrap_or(i64::MAX));
            }
        }
    }

    pub(super) fn forget(&self, share: ShareId) {
        let mut shares = self.shares.lock();
        if !shares.remove(&share) {
            return;
        }
        let label = [("share", share.to_string())];
        for counters in [&self.received, &self.sent, &self.connections] {
            counters.remove(&label);
        }
        self.active.remove(&label);
        self.dials.remove(&label);
        for reason in FailureReason::ALL {
            self.failures.remove(&[("share", share.to_string()), ("reason", reason.to_string())]);
        }
    }
}

/// A histogram that was counted elsewhere.
#[derive(Debug, Clone, Default)]
struct Dials(Arc<Mutex<DialTimes>>);

impl Dials {
    fn add(&self, more: &DialTimes) {
        self.0.lock().add(more);
    }
}

impl TypedMetric for Dials {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Dials {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let times = *self.0.lock();
        let bounds = DialTimes::BOUNDS.into_iter().map(seconds).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(times.counts).collect();
        encoder.encode_histogram::<NoLabelSet>(seconds(times.micros), times.count(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the sum of a century of dials is still exact to the millisecond"
)]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use uuid::Uuid;
    use wicketgate_model::TunnelId;

    #[test]
    fn shares_above_the_limit_are_summed_up() {
        let mut registry = Registry::default();
        let traffic = ShareTraffic::new(&mut registry);
        let delta = |n: u128| TrafficDelta {
            rx: 1,
            ..TrafficDelta::new(ShareId::new(Uuid::from_u128(n)), TunnelId::new(Uuid::nil()))
        };
        let most = SHARES as u128;
        for n in 0..most + 3 {
            traffic.add(&[delta(n)]);
        }
        let received = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            let lines = text.lines().filter(|l| l.starts_with("share_received_bytes_total"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let lines = received();
        assert_eq!(lines.len(), SHARES + 1);
        assert!(lines.iter().any(|l| l.ends_with("{share=\"other\"} 3")));
        // A freed time series is given to the next share.
        traffic.forget(ShareId::new(Uuid::from_u128(0)));
        traffic.forget(ShareId::new(Uuid::from_u128(most + 1)));
        traffic.add(&[delta(most + 1)]);
        let own = ShareId::new(Uuid::from_u128(most + 1)).to_string();
        assert!(received().iter().any(|l| l.contains(&own)));
    }
}
