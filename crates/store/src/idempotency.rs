//! Idempotency keys of requests, and their answers: a request is carried out once, however often it is sent.
//!
//! A request claims its key before anything else. The transaction of its write marks the claim, so that there is no write
//! without the mark and no mark without the write; then its answer is kept with it. If the process ends in between, the
//! mark shows that the write was made.

use crate::{Claim, Result, Store, StoreError, row::rows, transaction::Transaction};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::timeout;
use wicketgate_model::ExecutionId;

/// How long an answer is kept, in microseconds: a day.
const KEPT: i64 = 24 * 3600 * 1_000_000;
/// Microseconds. An older claim without a mark is abandoned, since no request takes so long.
const LEFT: i64 = 60 * 1_000_000;
/// A request whose key is not claimed until then has changed nothing.
const CLAIMED_WITHIN: Duration = Duration::from_millis(4500);

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
        timeout(CLAIMED_WITHIN, self.try_claim(claim, now)).await.map_err(|_| StoreError::RolledBack)?
    }

    async fn try_claim(&self, claim: &Claim, now: Timestamp) -> Result<Claimed> {
        let mut tx = self.database.begin().await?;
        // Deletes an expired key, and an abandoned claim without a write.
        let forget = "DELETE FROM idempotency WHERE principal = $1 AND key = $2 AND (claimed_at < $3 \
                      OR (claimed_at < $4 AND process IS NULL AND status IS NULL))";
        let Claim { principal, key, fingerprint, token } = claim;
        let tag = tx.keys().tag(fingerprint)?;
        let (at, expired) = (now.as_microsecond(), now.as_microsecond() - KEPT);
        tx.execute(forget, &[principal, key, &expired, &(at - LEFT)]).await?;
        let insert = "INSERT INTO idempotency (principal, key, fingerprint, token, claimed_at) \
                      VALUES ($1, $2, $3, $4, $5) ON CONFLICT (principal, key) DO NOTHING";
        let fresh = tx.execute(insert, &[principal, key, &tag, token, &at]).await?;
        let select = "SELECT * FROM idempotency WHERE principal = $1 AND key = $2";
        let found: Known = tx.one(select, &[principal, key]).await?;
        let is_same = tx.keys().is_tag(&found.fingerprint, fingerprint);
        tx.commit().await?;
        Ok(match fresh {
            0 if is_same => found.claimed(now),
            0 => Claimed::Other,
            _ => Claimed::Fresh,
        })
    }

    pub async fn keep_answer(&self, claim: &Claim, answer: &KeptAnswer) -> Result<()> {
        let mut tx = self.database.begin().await?;
        let keep = "UPDATE idempotency SET status = $1, headers = $2, body = $3 \
                    WHERE principal = $4 AND key = $5 AND token = $6";
        let KeptAnswer { status, headers, body } = answer;
        let Claim { principal, key, token, .. } = claim;
        tx.execute(keep, &[status, headers, body, principal, key, token]).await?;
        tx.commit().await
    }

    /// Frees the key of a request that changed nothing.
    pub async fn release(&self, claim: &Claim) -> Result<()> {
        let mut tx = self.database.begin().await?;
        let release =
            "DELETE FROM idempotency WHERE principal = $1 AND key = $2 AND token = $3 AND process IS NULL";
        tx.execute(release, &[&claim.principal, &claim.key, &claim.token]).await?;
        tx.commit().await
    }
}

rows! {
    struct Known {
        /// A tag: a request may contain a key, which a plain hash would let be tried.
        fingerprint: String,
        claimed_at: i64,
        process: Option<ExecutionId>,
        status: Option<u16>,
        headers: Option<Vec<(String, String)>>,
        body: Option<String>,
    }
}

impl Known {
    /// For the same request.
    fn claimed(self, now: Timestamp) -> Claimed {
        if let Some(status) = self.status {
            let headers = self.headers.unwrap_or_default();
            return Claimed::Answered(KeptAnswer { status, headers, body: self.body });
        }
        let is_left = self.claimed_at < now.as_microsecond() - LEFT;
        match self.process {
            Some(process) if is_left => Claimed::Lost(process),
            _ => Claimed::Running,
        }
    }
}

/// Deletes keys that are too old.
pub(crate) async fn prune(tx: &mut Transaction, now: Timestamp) -> Result<()> {
    let oldest = now.as_microsecond() - KEPT;
    tx.execute("DELETE FROM idempotency WHERE claimed_at < $1", &[&oldest]).await?;
    Ok(())
}
