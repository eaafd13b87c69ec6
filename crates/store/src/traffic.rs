//! What shares and tunnels carried, in buckets at three resolutions. Each delta is added to one bucket of each, so
//! that totals agree to the byte, whichever resolution is read.

use crate::{
    MetricsWindow, Result, Store,
    columns::{big, number},
    event, idempotency,
    metrics_window::RESOLUTIONS,
    share_count::{Counted, ShareCounts},
};
use jiff::Timestamp;
use std::collections::BTreeMap;
use wicketgate_model::{ShareId, TrafficDelta, TunnelId};

/// How long a deleted row stays readable: 30 days, in microseconds.
const RETENTION: i64 = 30 * 24 * 3600 * 1_000_000;

/// How long the record of a write is kept after it ended: a year, in microseconds. It is the audit trail.
const RECORDS: i64 = 365 * 24 * 3600 * 1_000_000;

/// Whose traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrafficScope {
    Share(ShareId),
    Tunnel(TunnelId),
}

/// What was carried in one bucket.
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

impl Sample {
    fn add(&mut self, other: &Self) {
        self.rx = self.rx.saturating_add(other.rx);
        self.tx = self.tx.saturating_add(other.tx);
        self.connections = self.connections.saturating_add(other.connections);
        self.failures = self.failures.saturating_add(other.failures);
    }
}

impl Store {
    /// Adds what was carried up to `at` since the report before.
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
                // Peaks of one report are taken to be at the same time.
                sum.active = sum.active.saturating_add(carried.active);
            }
        }
        if scopes.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        for (scope, carried) in &scopes {
            for resolution in &RESOLUTIONS {
                let wide = i64::from(resolution.seconds);
                sqlx::query(
                    "INSERT INTO traffic (scope, resolution, bucket, rx, tx, connections, failures, active) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
                     ON CONFLICT (scope, resolution, bucket) DO UPDATE SET rx = traffic.rx + excluded.rx, \
                     tx = traffic.tx + excluded.tx, connections = traffic.connections + excluded.connections, \
                     failures = traffic.failures + excluded.failures, \
                     active = CASE WHEN excluded.active > traffic.active THEN excluded.active ELSE traffic.active END",
                )
                .bind(scope.clone())
                .bind(wide)
                .bind(at.as_second().div_euclid(wide) * wide * 1000)
                .bind(big(carried.rx))
                .bind(big(carried.tx))
                .bind(big(carried.connections))
                .bind(big(carried.failures))
                .bind(big(carried.active))
                .execute(&mut *tx)
                .await?;
            }
        }
        Ok(tx.commit().await?)
    }

    /// One sample for every step of the window, oldest first, zeros included.
    pub async fn traffic(&self, scope: TrafficScope, window: &MetricsWindow) -> Result<Vec<Sample>> {
        let scope = match scope {
            TrafficScope::Share(id) => id.to_string(),
            TrafficScope::Tunnel(id) => id.to_string(),
        };
        let rows = sqlx::query(
            "SELECT bucket, rx, tx, connections, failures, active FROM traffic \
             WHERE scope = $1 AND resolution = $2 AND bucket >= $3 ORDER BY bucket",
        )
        .bind(scope)
        .bind(i64::from(window.resolution))
        .bind(window.first * 1000)
        .fetch_all(&self.readers)
        .await?;
        let (first, step) = (window.first * 1000, i64::from(window.step) * 1000);
        let mut samples: Vec<Sample> = (0..i64::from(window.samples))
            .map(|n| Sample { timestamp: first + n * step, ..Sample::default() })
            .collect();
        for row in &rows {
            let index = (number::<i64>(row, "bucket")? - first) / step;
            // A bucket that began after the question was asked belongs to the next one.
            let Some(sample) = usize::try_from(index).ok().and_then(|i| samples.get_mut(i)) else { continue };
            let read = Sample {
                timestamp: 0,
                rx: number(row, "rx")?,
                tx: number(row, "tx")?,
                connections: number(row, "connections")?,
                failures: number(row, "failures")?,
                active: number(row, "active")?,
            };
            sample.add(&read);
            sample.active = sample.active.max(read.active);
        }
        Ok(samples)
    }

    /// Removes what is past its retention: buckets, deleted shares and tunnels, records, keys, events, and codes that
    /// nobody used: a used one says with which key its agent enrolled. To be called now and then.
    pub async fn prune(&self, now: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        for resolution in &RESOLUTIONS {
            sqlx::query("DELETE FROM traffic WHERE resolution = $1 AND bucket < $2")
                .bind(i64::from(resolution.seconds))
                .bind((now.as_second() - i64::from(resolution.kept + resolution.seconds)) * 1000)
                .execute(&mut *tx)
                .await?;
        }
        let old = now.as_microsecond() - RETENTION;
        let mut counts = ShareCounts::default();
        let forgotten = sqlx::query(
            "DELETE FROM ipsec_share WHERE status = 'DELETED' AND deleted_at < $1 \
             RETURNING frontdoor, environment, status",
        );
        for row in forgotten.bind(old).fetch_all(&mut *tx).await? {
            counts.remove(Counted::read(&row)?);
        }
        counts.write(&mut tx).await?;
        for sql in [
            "DELETE FROM ipsec_tunnel WHERE status = 'DELETED' AND deleted_at < $1 \
             AND NOT EXISTS (SELECT 1 FROM ipsec_share s WHERE s.tunnel = ipsec_tunnel.id)",
            "DELETE FROM enrollment WHERE expires_at < $1 AND agent IS NULL",
        ] {
            sqlx::query(sql).bind(old).execute(&mut *tx).await?;
        }
        sqlx::query("DELETE FROM execution WHERE finished_at < $1")
            .bind(now.as_microsecond() - RECORDS)
            .execute(&mut *tx)
            .await?;
        idempotency::prune(&mut tx, now).await?;
        event::prune(&mut tx, now).await?;
        Ok(tx.commit().await?)
    }
}
