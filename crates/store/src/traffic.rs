//! Traffic of shares and tunnels, in buckets at three resolutions. Each delta is added to one bucket of each resolution, so
//! that totals are the same at all of them.

use crate::{
    MetricsWindow, Result, Store, console_session, event_row, handover_link, idempotency,
    metrics_window::{RESOLUTIONS, Resolution},
    row::rows,
    share_count::ShareCounts,
};
use jiff::Timestamp;
use std::collections::BTreeMap;
use wicketgate_model::{ShareId, TrafficDelta, TunnelId};

/// How long a deleted row stays readable, in microseconds: 30 days.
const RETENTION: i64 = 30 * 24 * 3600 * 1_000_000;

/// How long an execution is kept after its end, in microseconds: a year. It is the audit trail.
const RECORDS: i64 = 365 * 24 * 3600 * 1_000_000;

/// The resource whose traffic is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficScope {
    Share(ShareId),
    Tunnel(TunnelId),
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

impl Sample {
    fn add(&mut self, other: &Self) {
        self.rx = self.rx.saturating_add(other.rx);
        self.tx = self.tx.saturating_add(other.tx);
        self.connections = self.connections.saturating_add(other.connections);
        self.failures = self.failures.saturating_add(other.failures);
    }
}

impl Store {
    /// Adds the traffic since the previous report, at `at`.
    pub async fn record_traffic(&self, at: Timestamp, deltas: &[TrafficDelta]) -> Result<()> {
        let mut scopes: BTreeMap<String, Sample> = BTreeMap::new();
        for delta in deltas {
            let carried = Sample {
                timestamp: 0,
                rx: delta.rx,
                tx: delta.tx,
                connections: delta.connections,
                failures: delta.failed(),
                active: delta.active,
            };
            for scope in [delta.share.to_string(), delta.tunnel.to_string()] {
                let sum = scopes.entry(scope).or_default();
                sum.add(&carried);
                // Peaks of one report are assumed to coincide.
                sum.active = sum.active.saturating_add(carried.active);
            }
        }
        if scopes.is_empty() {
            return Ok(());
        }
        let mut tx = self.database.begin().await?;
        let add = "INSERT INTO traffic (scope, resolution, bucket, rx, tx, connections, failures, active) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
                   ON CONFLICT (scope, resolution, bucket) DO UPDATE SET rx = traffic.rx + excluded.rx, \
                   tx = traffic.tx + excluded.tx, connections = traffic.connections + excluded.connections, \
                   failures = traffic.failures + excluded.failures, \
                   active = CASE WHEN excluded.active > traffic.active THEN excluded.active ELSE traffic.active END";
        for (scope, Sample { rx, tx: sent, connections, failures, active, .. }) in &scopes {
            for resolution in &RESOLUTIONS {
                let wide = i64::from(resolution.seconds);
                let bucket = at.as_second().div_euclid(wide) * wide * 1000;
                tx.execute(add, &[scope, &wide, &bucket, rx, sent, connections, failures, active]).await?;
            }
        }
        tx.commit().await
    }

    /// One sample for every step of the window, oldest first, zeros included.
    pub async fn traffic(&self, scope: TrafficScope, window: &MetricsWindow) -> Result<Vec<Sample>> {
        let scope = match scope {
            TrafficScope::Share(id) => id.to_string(),
            TrafficScope::Tunnel(id) => id.to_string(),
        };
        let select = "SELECT bucket AS timestamp, rx, tx, connections, failures, active FROM traffic \
                      WHERE scope = $1 AND resolution = $2 AND bucket >= $3 ORDER BY bucket";
        let start = window.first * 1000;
        let stored: Vec<Sample> = self.all(select, &[&scope, &window.resolution, &start]).await?;
        let step = i64::from(window.step) * 1000;
        let mut samples: Vec<Sample> = (0..i64::from(window.samples))
            .map(|n| Sample { timestamp: start + n * step, ..Sample::default() })
            .collect();
        for read in &stored {
            let index = (read.timestamp - start) / step;
            // A bucket that began after the window's end.
            let Some(sample) = usize::try_from(index).ok().and_then(|i| samples.get_mut(i)) else { continue };
            sample.add(read);
            sample.active = sample.active.max(read.active);
        }
        Ok(samples)
    }

    /// Deletes rows past their retention: buckets, deleted shares and tunnels, executions, idempotency keys, events,
    /// sessions, handover links that have ended, and unused enrolment codes (a used one has the key that its agent enrolled
    /// with). To be called periodically.
    pub async fn prune(&self, now: Timestamp) -> Result<()> {
        let mut tx = self.database.begin().await?;
        for Resolution { seconds, kept } in &RESOLUTIONS {
            let oldest = (now.as_second() - i64::from(kept + seconds)) * 1000;
            tx.execute("DELETE FROM traffic WHERE resolution = $1 AND bucket < $2", &[seconds, &oldest])
                .await?;
        }
        let old = now.as_microsecond() - RETENTION;
        let mut counts = ShareCounts::default();
        let shares = "DELETE FROM ipsec_share WHERE status = 'DELETED' AND deleted_at < $1 \
                      RETURNING frontdoor, environment, status";
        for share in tx.all(shares, &[&old]).await? {
            counts.moved(Some(share), None);
        }
        counts.write(&mut tx).await?;
        handover_link::prune(&mut tx, now, old).await?;
        let tunnels = "DELETE FROM ipsec_tunnel WHERE status = 'DELETED' AND deleted_at < $1 \
                       AND NOT EXISTS (SELECT 1 FROM ipsec_share s WHERE s.tunnel = ipsec_tunnel.id)";
        tx.execute(tunnels, &[&old]).await?;
        tx.execute("DELETE FROM enrollment WHERE expires_at < $1 AND agent IS NULL", &[&old]).await?;
        let oldest_record = now.as_microsecond() - RECORDS;
        tx.execute("DELETE FROM execution WHERE finished_at < $1", &[&oldest_record]).await?;
        idempotency::prune(&mut tx, now).await?;
        event_row::prune(&mut tx, now).await?;
        console_session::prune(&mut tx, now).await?;
        tx.commit().await
    }
}
