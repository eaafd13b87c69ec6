//! Idempotency keys of requests, and their answers: a request is carried out once, however often it is sent.
//!
//! A request claims its key before anything else. The transaction of its write marks the claim, so that there is no write
//! without the mark and no mark without the write; then its answer is kept with it. If the process ends in between, or the
//! answer to the COMMIT is lost, the mark shows whether the write was made. Each server knows which of its own requests run; a request
//! of another one runs while that server lives, for a minute at most. Should a claim have been given away too early, its write fails, since it is not its own any more.

use crate::{
    Claim, Result, Store, StoreError,
    claim::{OtherClaim, RunningClaim},
    row::rows,
};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;
use wicketgate_model::{ExecutionId, ServerId};

/// How long an answer is kept, in microseconds: a day.
pub(crate) const KEPT: i64 = 24 * 3600 * 1_000_000;
/// No request takes as long, in microseconds, with what the clocks of two servers may differ by.
const LONGEST: i64 = 60 * 1_000_000;
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
    /// It was free, and is claimed by the caller.
    Fresh,
    /// Its request is being carried out.
    Running,
    /// It was used for another request.
    Other,
    Answered(KeptAnswer),
    /// The write of this process was made, and its answer lost.
    Lost(ExecutionId),
}

const FIND: &str = "SELECT * FROM idempotency WHERE principal = $1 AND key = $2";

impl Store {
    /// From before a claim until its answer is kept, or its request has failed. While one runs, another one with its key is told
    /// so here, and takes no connection of the database: that one would wait for the first one's transaction.
    ///
    /// # Errors
    /// The state of the key, if it is taken.
    pub fn running(&self, claim: &Claim) -> Result<RunningClaim, Claimed> {
        self.claims.insert(claim).map_err(|other| match other {
            OtherClaim::Same => Claimed::Running,
            OtherClaim::Different => Claimed::Other,
        })
    }

    pub async fn claim(&self, claim: &Claim, now: Timestamp) -> Result<Claimed> {
        timeout(CLAIMED_WITHIN, self.try_claim(claim, now)).await.map_err(|_| StoreError::RolledBack)?
    }

    async fn try_claim(&self, claim: &Claim, now: Timestamp) -> Result<Claimed> {
        let mut tx = self.database.begin().await?;
        let Claim { principal, key, fingerprint, token } = claim;
        let (tag, at) = (tx.keys().tag(fingerprint)?, now.as_microsecond());
        // Locked: a transaction that may still be committed is waited for, and then decides.
        let known: Option<Known> =
            tx.find(self.database.locking(FIND, "idempotency"), &[principal, key]).await?;
        let own = self.server_id();
        let runs = |known: &Known| match known.server {
            Some(other) if other != own => known.may_run(now) && self.servers.lives(other),
            _ => self.claims.contains(claim, known.token),
        };
        if known.is_some_and(|known| known.is_free(now, runs(&known))) {
            let forget = "DELETE FROM idempotency WHERE principal = $1 AND key = $2";
            tx.execute(forget, &[principal, key]).await?;
        }
        let insert = "INSERT INTO idempotency (principal, key, fingerprint, token, claimed_at, server) \
                      VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (principal, key) DO NOTHING";
        let fresh = tx.execute(insert, &[principal, key, &tag, token, &at, &own]).await?;
        let found: Known = tx.one(FIND, &[principal, key]).await?;
        let is_same = tx.keys().is_tag(&found.fingerprint, fingerprint);
        tx.commit().await?;
        Ok(match fresh {
            0 if is_same => {
                let runs = runs(&found);
                found.claimed(runs)
            }
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
}

rows! {
    struct Known {
        /// A tag: a request may contain a key, which a plain hash would let be tried.
        fingerprint: String,
        token: Uuid,
        claimed_at: i64,
        /// That carries out the request.
        server: Option<ServerId>,
        process: Option<ExecutionId>,
        status: Option<u16>,
        headers: Option<Vec<(String, String)>>,
        body: Option<String>,
    }
}

impl Known {
    /// Another server carries out no request for so long.
    fn may_run(&self, now: Timestamp) -> bool {
        self.claimed_at > now.as_microsecond() - LONGEST
    }

    /// It has expired, or its request ended without a write.
    fn is_free(&self, now: Timestamp, runs: bool) -> bool {
        let is_open = self.process.is_none() && self.status.is_none();
        self.claimed_at < now.as_microsecond() - KEPT || (is_open && !runs)
    }

    /// For the same request.
    fn claimed(self, runs: bool) -> Claimed {
        if let Some(status) = self.status {
            let headers = self.headers.unwrap_or_default();
            return Claimed::Answered(KeptAnswer { status, headers, body: self.body });
        }
        match self.process {
            Some(process) if !runs => Claimed::Lost(process),
            _ => Claimed::Running,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test]
    async fn a_repeated_key_takes_no_connection_while_its_request_runs() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::store::fresh(dir.path()).await;
        let claim = |fingerprint: &str| {
            let [principal, key, fingerprint] = ["someone", "k", fingerprint].map(str::to_owned);
            Claim { principal, key, fingerprint, token: Uuid::now_v7() }
        };
        let first = claim("a");
        let running = store.running(&first).unwrap();
        // The only connection that writes is in use: a claim in the database would wait for it.
        let writer = store.database.begin().await.unwrap();
        let begin = Instant::now();
        for _ in 0..20 {
            assert_eq!(store.running(&claim("a")).err(), Some(Claimed::Running));
            assert_eq!(store.running(&claim("b")).err(), Some(Claimed::Other));
        }
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
        drop(running);
        let next = store.running(&claim("b")).unwrap();
        drop((writer, next));
        assert_eq!(store.claim(&first, Timestamp::UNIX_EPOCH).await.unwrap(), Claimed::Fresh);
    }
}
