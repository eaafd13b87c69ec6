//! Idempotency keys of requests, and their answers: a request is carried out once, however often it is sent.
//!
//! A request claims its key before anything else. The transaction of its write marks the claim, so that there is no write
//! without the mark and no mark without the write; then its answer is kept with it. If the process ends in between, the
//! mark shows that the write was made.

use crate::{
    Claim, Result, Store, StoreError,
    columns::{number, parsed_option, text, time},
};
use jiff::Timestamp;
use sqlx::{AnyConnection, Row, any::AnyRow};
use wicketgate_model::ExecutionId;

/// How long an answer is kept, in microseconds: a day.
const KEPT: i64 = 24 * 3600 * 1_000_000;
/// Microseconds. An older claim without a mark is abandoned, since no request takes so long.
const LEFT: i64 = 60 * 1_000_000;

/// The answer to a request. It has no body if that held a secret, which is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
}

/// The state of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It was free, and is claimed by the caller, which must keep an answer or release it.
    Fresh,
    /// Its request is being carried out.
    Running,
    /// It was used for another request.
    Other,
    Answered(KeptAnswer),
    /// The write of this process was made, and its answer lost.
    Lost(ExecutionId),
}

impl Store {
    pub async fn claim(&self, claim: &Claim, now: Timestamp) -> Result<Claimed> {
        let mut tx = self.database.begin().await?;
        // Deletes an expired key, and an abandoned claim without a write.
        sqlx::query(
            "DELETE FROM idempotency WHERE principal = $1 AND key = $2 AND (claimed_at < $3 \
             OR (claimed_at < $4 AND process IS NULL AND status IS NULL))",
        )
        .bind(claim.principal.clone())
        .bind(claim.key.clone())
        .bind(now.as_microsecond() - KEPT)
        .bind(now.as_microsecond() - LEFT)
        .execute(&mut *tx)
        .await?;
        let fresh = sqlx::query(
            "INSERT INTO idempotency (principal, key, fingerprint, token, claimed_at) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (principal, key) DO NOTHING",
        )
        .bind(claim.principal.clone())
        .bind(claim.key.clone())
        .bind(claim.fingerprint.clone())
        .bind(claim.token.to_string())
        .bind(now.as_microsecond())
        .execute(&mut *tx)
        .await?;
        let found = sqlx::query("SELECT * FROM idempotency WHERE principal = $1 AND key = $2")
            .bind(claim.principal.clone())
            .bind(claim.key.clone())
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        if fresh.rows_affected() > 0 {
            return Ok(Claimed::Fresh);
        }
        known(&found, claim, now)
    }

    pub async fn keep_answer(&self, claim: &Claim, answer: &KeptAnswer) -> Result<()> {
        let headers = serde_json::to_string(&answer.headers);
        let headers = headers.map_err(|_| StoreError::Corrupt { column: "headers" })?;
        let mut tx = self.database.begin().await?;
        sqlx::query(
            "UPDATE idempotency SET status = $1, headers = $2, body = $3 \
             WHERE principal = $4 AND key = $5 AND token = $6",
        )
        .bind(i64::from(answer.status))
        .bind(headers)
        .bind(answer.body.clone())
        .bind(claim.principal.clone())
        .bind(claim.key.clone())
        .bind(claim.token.to_string())
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }

    /// Frees the key of a request that changed nothing.
    pub async fn release(&self, claim: &Claim) -> Result<()> {
        let mut tx = self.database.begin().await?;
        sqlx::query(
            "DELETE FROM idempotency WHERE principal = $1 AND key = $2 AND token = $3 AND process IS NULL",
        )
        .bind(claim.principal.clone())
        .bind(claim.key.clone())
        .bind(claim.token.to_string())
        .execute(&mut *tx)
        .await?;
        Ok(tx.commit().await?)
    }
}

fn known(row: &AnyRow, claim: &Claim, now: Timestamp) -> Result<Claimed> {
    if text(row, "fingerprint")? != claim.fingerprint {
        return Ok(Claimed::Other);
    }
    let status: Option<i64> = row.try_get("status")?;
    if status.is_some() {
        let headers = serde_json::from_str(&text(row, "headers")?);
        return Ok(Claimed::Answered(KeptAnswer {
            status: number(row, "status")?,
            headers: headers.map_err(|_| StoreError::Corrupt { column: "headers" })?,
            body: row.try_get("body")?,
        }));
    }
    let is_left = time(row, "claimed_at")?.as_microsecond() < now.as_microsecond() - LEFT;
    Ok(match parsed_option(row, "process")? {
        Some(process) if is_left => Claimed::Lost(process),
        _ => Claimed::Running,
    })
}

/// Deletes keys that are too old.
pub(crate) async fn prune(db: &mut AnyConnection, now: Timestamp) -> Result<()> {
    sqlx::query("DELETE FROM idempotency WHERE claimed_at < $1")
        .bind(now.as_microsecond() - KEPT)
        .execute(db)
        .await?;
    Ok(())
}
