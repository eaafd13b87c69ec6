//! A request's claim on its idempotency key.

use crate::{Result, StoreError, transaction::Transaction};
use uuid::Uuid;
use wicketgate_model::ExecutionId;

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

/// Marks the request's claim, in the transaction of its write. If the claim was taken over, the write is undone.
pub(crate) async fn mark(tx: &mut Transaction, claim: Option<&Claim>, process: ExecutionId) -> Result<()> {
    let Some(Claim { principal, key, token, .. }) = claim else { return Ok(()) };
    let mark = "UPDATE idempotency SET process = $1 WHERE principal = $2 AND key = $3 AND token = $4";
    let marked = tx.execute(mark, &[&process, principal, key, token]).await?;
    if marked == 1 { Ok(()) } else { Err(StoreError::Stale) }
}
