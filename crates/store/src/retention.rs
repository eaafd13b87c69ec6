//! Deletes rows that are past their retention.
//!
//! Invariant: no other write waits for longer than a step. A step is a transaction of its own and deletes few rows; between two
//! steps, writes that wait are carried out.

use crate::{
    Result, Store, event_retention, field::Argument, idempotency, metrics_window::RESOLUTIONS,
    share_count::ShareCounts, transaction::Transaction,
};
use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use wicketgate_model::PROOF_LASTS;

/// How long a deleted row stays readable, in microseconds: 30 days.
const DELETED: i64 = 30 * 24 * 3600 * 1_000_000;

/// How long an execution is kept after its end, in microseconds: a year. It is the audit trail.
const RECORDS: i64 = 365 * 24 * 3600 * 1_000_000;

/// Rows that a step deletes: ten milliseconds, and the sync of a disk.
const STEP: usize = 500;
/// A tunnel has up to some hundred rows in other tables.
const STEP_OF_TUNNELS: usize = 10;

/// Steps of a rule in one call, so that it ends soon, and no rule waits for another one.
const STEPS: usize = 100;

/// Which rows of a table are deleted.
struct Rule {
    table: &'static str,
    /// The columns of its primary key.
    key: &'static str,
    /// Of a row that is past its retention. `$1` is `before`, if there is one.
    ended: String,
    before: Option<i64>,
    step: usize,
}

impl Rule {
    fn new(table: &'static str, key: &'static str, ended: impl Into<String>, before: i64) -> Self {
        Self { table, key, ended: ended.into(), before: Some(before), step: STEP }
    }

    fn forgotten(table: &'static str, key: &'static str, number: &str) -> Self {
        let ended = format!("{number} <= (SELECT forgotten FROM event_sequence)");
        Self { table, key, ended, before: None, step: STEP }
    }

    fn statement(&self) -> String {
        let Self { table, key, ended, step, .. } = self;
        format!("DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {ended} LIMIT {step})")
    }

    fn values(&self) -> Vec<&dyn Argument> {
        self.before.iter().map(|before| before as &dyn Argument).collect()
    }

    /// Returns how many rows it has deleted.
    async fn delete(&self, tx: &mut Transaction) -> Result<usize> {
        let statement = self.statement();
        if self.table != "ipsec_share" {
            let deleted = tx.execute(AssertSqlSafe(statement), &self.values()).await?;
            return Ok(usize::try_from(deleted).unwrap_or(usize::MAX));
        }
        let statement = format!("{statement} RETURNING frontdoor, environment, status");
        let shares = tx.all(AssertSqlSafe(statement), &self.values()).await?;
        let (deleted, mut counts) = (shares.len(), ShareCounts::default());
        for share in shares {
            counts.moved(Some(share), None);
        }
        counts.write(tx).await?;
        Ok(deleted)
    }
}

/// Buckets, deleted shares and tunnels, executions, idempotency keys, events, sessions, handover links that have ended, released addresses, join tokens,
/// and unused enrolment codes: a used one is the record of how its agent came.
fn rules(now: Timestamp) -> Vec<Rule> {
    let at = now.as_microsecond();
    let mut rules = Vec::new();
    for resolution in &RESOLUTIONS {
        let ended = format!("resolution = {} AND bucket < $1", resolution.seconds);
        let before = (now.as_second() - i64::from(resolution.kept + resolution.seconds)) * 1000;
        rules.push(Rule::new("traffic", "scope, resolution, bucket", &*ended, before));
        rules.push(Rule::new("traffic_failure", "scope, resolution, bucket, reason", ended, before));
    }
    let is_deleted = "status = 'DELETED' AND deleted_at < $1";
    let without_shares =
        format!("{is_deleted} AND NOT EXISTS (SELECT 1 FROM ipsec_share s WHERE s.tunnel = ipsec_tunnel.id)");
    let of_ended_links =
        "link IN (SELECT id FROM handover_link WHERE expires_at <= $1 OR revoked_at IS NOT NULL)";
    rules.extend([
        Rule::new("ipsec_share", "id", is_deleted, at - DELETED),
        Rule::new("site_session", "token_sha256", of_ended_links, at),
        Rule::new("handover_link", "id", "expires_at < $1 OR revoked_at < $1", at - DELETED),
        Rule { step: STEP_OF_TUNNELS, ..Rule::new("ipsec_tunnel", "id", without_shares, at - DELETED) },
        Rule::new("enrollment", "id", "expires_at < $1 AND agent IS NULL", at - DELETED),
        Rule::new("join_token", "id", "expires_at < $1", at - DELETED),
        Rule::new("execution", "id", "finished_at < $1", at - RECORDS),
        Rule::new("idempotency", "principal, key", "claimed_at < $1", at - idempotency::KEPT),
        Rule::forgotten("event", "id", "id"),
        Rule::forgotten("event_forgotten", "frontdoor", "newest"),
        Rule::new("console_session", "token_sha256", "expires_at < $1", at),
        Rule::new(
            "peer_address_hold",
            "location, peer_address, frontdoor",
            "released_at < $1",
            at - i64::try_from(PROOF_LASTS.as_micros()).unwrap_or(i64::MAX),
        ),
    ]);
    rules
}

impl Store {
    /// Deletes rows past their retention. To be called periodically, and again at once if it returns that some are left.
    pub async fn prune(&self, now: Timestamp) -> Result<bool> {
        let mut tx = self.database.begin_in_turn().await?;
        event_retention::forget(&mut tx, now).await?;
        tx.commit().await?;
        let mut are_left = false;
        for rule in rules(now) {
            let mut steps = 0;
            while steps < STEPS && self.step(&rule).await? {
                steps += 1;
            }
            are_left |= steps == STEPS;
        }
        Ok(are_left)
    }

    /// Returns whether there may be more.
    async fn step(&self, rule: &Rule) -> Result<bool> {
        let mut tx = self.database.begin_in_turn().await?;
        let deleted = rule.delete(&mut tx).await?;
        tx.commit().await?;
        Ok(deleted == rule.step)
    }
}

#[cfg(test)]
mod tests;
