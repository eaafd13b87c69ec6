//! Traffic in JSON, and the window of a query.

use super::{duration, query::Query};
use crate::error::ApiError;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use wicketgate_model::FailureReason;
use wicketgate_store::{InvalidWindow, MetricsWindow, Sample};

#[derive(Debug, Serialize)]
pub(in crate::api) struct Metrics {
    /// `ipsec-share` or `ipsec-tunnel`.
    pub(in crate::api) scope: &'static str,
    pub(in crate::api) id: String,
    /// Seconds.
    pub(in crate::api) period: u32,
    /// Seconds of one sample.
    pub(in crate::api) step: u32,
    samples: Vec<MetricsSample>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MetricsSample {
    rx: u64,
    tx: u64,
    connections: u64,
    failures: u64,
    failures_by_reason: BTreeMap<FailureReason, u64>,
    active: u64,
    at: Timestamp,
    /// `at` in Unix milliseconds.
    timestamp: i64,
}

impl Metrics {
    pub(in crate::api) fn new(
        scope: &'static str,
        id: String,
        window: &MetricsWindow,
        samples: Vec<(Sample, BTreeMap<FailureReason, u64>)>,
    ) -> Self {
        let sample = |(s, failures_by_reason): (Sample, _)| MetricsSample {
            rx: s.rx,
            tx: s.tx,
            connections: s.connections,
            failures: s.failures,
            failures_by_reason,
            active: s.active,
            at: Timestamp::from_millisecond(s.timestamp).unwrap_or(Timestamp::MIN),
            timestamp: s.timestamp,
        };
        Self {
            scope,
            id,
            period: window.period,
            step: window.step,
            samples: samples.into_iter().map(sample).collect(),
        }
    }
}

/// `duration` and `step`.
pub(in crate::api) fn window(query: Query, now: Timestamp) -> Result<MetricsWindow, ApiError> {
    let [duration, step] = query.values(["duration", "step"])?;
    let read = |name: &str, text: Option<String>| {
        let like = || ApiError::bad_request(format!("{name} must be like 15m, 1h, 1h30m, 7d or PT1H"));
        text.map(|t| duration::seconds(&t).ok_or_else(like)).transpose()
    };
    let period = read("duration", duration)?.unwrap_or(MetricsWindow::DEFAULT);
    let step = read("step", step)?;
    MetricsWindow::new(period, step, now).map_err(|rule| {
        let name = if rule == InvalidWindow::Duration { "duration" } else { "step" };
        ApiError::bad_request(format!("{name} {rule}"))
    })
}
