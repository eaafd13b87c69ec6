//! A request's claim on its idempotency key.

use crate::{Result, StoreError, transaction::Transaction};
use std::{collections::BTreeSet, sync::Arc};
use uuid::Uuid;
use wicketgate_model::ExecutionId;
use wicketgate_system::Mutex;

/// A request with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The owner of the key.
    pub principal: String,
    pub key: String,
    /// Tells its request from another one.
    pub fingerprint: String,
    /// Of this attempt alone.
    pub token: Uuid,
}

/// The claims whose requests run. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunningClaims(Arc<Mutex<BTreeSet<Uuid>>>);

impl RunningClaims {
    pub(crate) fn insert(&self, claim: &Claim) -> RunningClaim {
        self.0.lock().insert(claim.token);
        RunningClaim { all: self.clone(), token: claim.token }
    }

    /// By its token.
    pub(crate) fn contains(&self, token: Uuid) -> bool {
        self.0.lock().contains(&token)
    }
}

/// Its request runs until this is dropped.
#[derive(Debug)]
pub struct RunningClaim {
    all: RunningClaims,
    token: Uuid,
}

impl Drop for RunningClaim {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.token);
    }
}

/// Marks the request's claim, in the transaction of its write. If the claim was taken over, the write is undone.
pub(crate) async fn mark(tx: &mut Transaction, claim: Option<&Claim>, process: ExecutionId) -> Result<()> {
    let Some(Claim { principal, key, token, .. }) = claim else { return Ok(()) };
    let mark = "UPDATE idempotency SET process = $1 WHERE principal = $2 AND key = $3 AND token = $4";
    let marked = tx.execute(mark, &[&process, principal, key, token]).await?;
    if marked == 1 { Ok(()) } else { Err(StoreError::Stale) }
}
