//! Traffic of shares and tunnels, in buckets at three resolutions. Each delta is added to one bucket of each resolution, so
//! that totals are the same at all of them.

use crate::{
    GatewayEpoch, MetricsWindow, Result, Store,
    bulk::{parts, places},
    field::Argument,
    metrics_window::RESOLUTIONS,
    row::rows,
    statement::bind,
    transaction::Transaction,
};
use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use std::{collections::BTreeMap, fmt};
use uuid::Uuid;
use wicketgate_model::{FailureReason, ShareId, SpooledTraffic, TrafficDelta, TunnelId};

/// Shares and tunnels whose traffic is added in one transaction: SQLite's other writes wait for it. It may not differ between servers
/// of a database: one completes what another has recorded in part.
const AT_ONCE: usize = 500;

/// The resource whose traffic is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrafficScope {
    Share(ShareId),
    Tunnel(TunnelId),
}

impl fmt::Display for TrafficScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(id) => id.fmt(f),
            Self::Tunnel(id) => id.fmt(f),
        }
    }
}

rows! {
    /// The traffic of one bucket.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Sample {
        /// The start of the bucket, Unix milliseconds.
        pub timestamp: i64,
        /// Bytes from the remote site to the target.
        pub rx: u64,
        /// Bytes from the target to the remote site.
        pub tx: u64,
        /// Connections opened.
        pub connections: u64,
        /// Connections that could not be served.
        pub failures: u64,
        /// The most connections open at one time.
        pub active: u64,
    }
}

/// The traffic of a gateway's shares and tunnels in one bucket of each resolution.
#[derive(Debug)]
pub struct TrafficReport {
    /// With the number: tells it from the gateway's other reports. It is added once, however often it is recorded.
    spool: Uuid,
    number: u64,
    at: Timestamp,
    scopes: BTreeMap<TrafficScope, Carried>,
}

impl TrafficReport {
    /// What a gateway sent, and arrived at `arrived`: nothing was carried later, whatever the gateway's clock says.
    pub fn new(sent: &SpooledTraffic, arrived: Timestamp) -> Self {
        let mut scopes: BTreeMap<_, Carried> = BTreeMap::new();
        for delta in &sent.deltas {
            for scope in [TrafficScope::Share(delta.share), TrafficScope::Tunnel(delta.tunnel)] {
                scopes.entry(scope).or_default().add(delta);
            }
        }
        Self { spool: sent.spool, number: sent.number, at: sent.at.min(arrived), scopes }
    }

    /// As in [`SpooledTraffic`].
    pub fn spool(&self) -> Uuid {
        self.spool
    }

    /// As in [`SpooledTraffic`].
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// What one report adds to a share's or a tunnel's buckets.
#[derive(Debug, Default)]
struct Carried {
    sample: Sample,
    by_reason: BTreeMap<FailureReason, u64>,
}

impl Carried {
    fn add(&mut self, delta: &TrafficDelta) {
        self.sample.add(&Sample {
            timestamp: 0,
            rx: delta.rx,
            tx: delta.tx,
            connections: delta.connections,
            failures: delta.failed(),
            active: 0,
        });
        // Peaks of one report are assumed to coincide.
        self.sample.active = self.sample.active.saturating_add(delta.active);
        for (reason, count) in &delta.failures {
            let sum = self.by_reason.entry(*reason).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
}

/// Changes no row if the part was added before, by whichever server, or a later report was. A transaction that does so at the same
/// time is waited for.
const BEGIN_PART: &str = "INSERT INTO traffic_report (gateway, spool, number, parts) VALUES ($1, $2, $3, $4) \
    ON CONFLICT (gateway) DO UPDATE SET spool = excluded.spool, number = excluded.number, parts = excluded.parts \
    WHERE traffic_report.spool <> excluded.spool OR traffic_report.number < excluded.number \
    OR (traffic_report.number = excluded.number AND traffic_report.parts < excluded.parts)";

/// `{}` is for the rows.
const ADD_BUCKETS: &str = "INSERT INTO traffic (scope, resolution, bucket, rx, tx, connections, failures, active) \
    VALUES {} ON CONFLICT (scope, resolution, bucket) DO UPDATE SET rx = traffic.rx + excluded.rx, \
    tx = traffic.tx + excluded.tx, connections = traffic.connections + excluded.connections, \
    failures = traffic.failures + excluded.failures, \
    active = CASE WHEN excluded.active > traffic.active THEN excluded.active ELSE traffic.active END";

/// `{}` is for the rows.
const ADD_FAILURES: &str = "INSERT INTO traffic_failure (scope, resolution, bucket, reason, count) VALUES {} \
    ON CONFLICT (scope, resolution, bucket, reason) DO UPDATE SET count = traffic_failure.count + excluded.count";

impl Sample {
    fn add(&mut self, other: &Self) {
        self.rx = self.rx.saturating_add(other.rx);
        self.tx = self.tx.saturating_add(other.tx);
        self.connections = self.connections.saturating_add(other.connections);
        self.failures = self.failures.saturating_add(other.failures);
    }
}

impl Store {
    /// Adds the traffic of a report, in parts. Those that were added before are left out: the answer to a COMMIT may have been
    /// lost, or the gateway has not heard that the report was recorded and sends it again. The reports of a spool have to be recorded
    /// in the order of their numbers.
    pub async fn record_traffic(&self, epoch: &GatewayEpoch, report: &TrafficReport) -> Result<()> {
        // In one order, so that two writers never wait for each other.
        let scopes: Vec<_> = report.scopes.iter().collect();
        for (scopes, part) in scopes.chunks(AT_ONCE).zip(1_i64..) {
            let mut tx = self.begin_under(epoch).await?;
            if tx.execute(BEGIN_PART, &[&epoch.gateway(), &report.spool, &report.number, &part]).await? == 0 {
                tx.rollback().await?;
                continue;
            }
            add_traffic(&mut tx, report.at, scopes).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// One sample for every step of the window, oldest first, zeros included.
    pub async fn traffic(&self, scope: TrafficScope, window: &MetricsWindow) -> Result<Vec<Sample>> {
        let select = "SELECT bucket AS timestamp, rx, tx, connections, failures, active FROM traffic \
                      WHERE scope = $1 AND resolution = $2 AND bucket >= $3 ORDER BY bucket";
        let values: [&dyn Argument; 3] = [&scope.to_string(), &window.resolution, &window.start()];
        let stored: Vec<Sample> = self.all(select, &values).await?;
        let mut samples: Vec<_> =
            window.starts().map(|timestamp| Sample { timestamp, ..Sample::default() }).collect();
        for read in &stored {
            let Some(sample) = window.sample_of(read.timestamp, &mut samples) else { continue };
            sample.add(read);
            sample.active = sample.active.max(read.active);
        }
        Ok(samples)
    }

    /// The failures of each of the window's samples, by their reasons, without zeros.
    pub async fn failures(
        &self,
        scope: TrafficScope,
        window: &MetricsWindow,
    ) -> Result<Vec<BTreeMap<FailureReason, u64>>> {
        let select = "SELECT bucket, reason, count FROM traffic_failure \
                      WHERE scope = $1 AND resolution = $2 AND bucket >= $3";
        let values: [&dyn Argument; 3] = [&scope.to_string(), &window.resolution, &window.start()];
        let mut samples: Vec<_> = window.starts().map(|_| BTreeMap::new()).collect();
        for (bucket, reason, count) in self.all::<(i64, FailureReason, u64)>(select, &values).await? {
            let Some(sample) = window.sample_of(bucket, &mut samples) else { continue };
            let sum: &mut u64 = sample.entry(reason).or_default();
            *sum = sum.saturating_add(count);
        }
        Ok(samples)
    }
}

async fn add_traffic(
    tx: &mut Transaction,
    at: Timestamp,
    scopes: &[(&TrafficScope, &Carried)],
) -> Result<()> {
    let mut buckets = Vec::new();
    let mut failures = Vec::new();
    for (scope, Carried { sample, by_reason }) in scopes {
        let scope = scope.to_string();
        for resolution in &RESOLUTIONS {
            let (wide, bucket) = (resolution.seconds, resolution.bucket(at));
            buckets.push((scope.clone(), wide, bucket, sample));
            let by_reason = by_reason.iter();
            failures.extend(by_reason.map(|(reason, count)| (scope.clone(), wide, bucket, *reason, *count)));
        }
    }
    for part in parts(&buckets) {
        let mut query = sqlx::query(AssertSqlSafe(ADD_BUCKETS.replace("{}", &places(part.len(), 8))));
        for (scope, wide, bucket, Sample { rx, tx, connections, failures, active, .. }) in part {
            query = bind(query, &[scope, wide, bucket, rx, tx, connections, failures, active])?;
        }
        tx.run(query).await?;
    }
    for part in parts(&failures) {
        let mut query = sqlx::query(AssertSqlSafe(ADD_FAILURES.replace("{}", &places(part.len(), 5))));
        for (scope, wide, bucket, reason, count) in part {
            query = bind(query, &[scope, wide, bucket, reason, count])?;
        }
        tx.run(query).await?;
    }
    Ok(())
}
