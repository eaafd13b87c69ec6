//! A request's claim on its idempotency key.

use crate::{Result, StoreError, transaction::Transaction};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};
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

/// The claims whose requests run, by their principals and keys. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunningClaims(Arc<Mutex<BTreeMap<Owned, Running>>>);

/// A principal and its key.
type Owned = (String, String);

#[derive(Debug)]
struct Running {
    token: Uuid,
    fingerprint: String,
}

impl RunningClaims {
    /// The running claim on the same key is told in place of it.
    pub(crate) fn insert(&self, claim: &Claim) -> Result<RunningClaim, OtherClaim> {
        let Claim { principal, key, fingerprint, token } = claim;
        match self.0.lock().entry((principal.clone(), key.clone())) {
            Entry::Occupied(running) if running.get().fingerprint == *fingerprint => Err(OtherClaim::Same),
            Entry::Occupied(_) => Err(OtherClaim::Different),
            Entry::Vacant(free) => {
                let of = free.key().clone();
                free.insert(Running { token: *token, fingerprint: fingerprint.clone() });
                Ok(RunningClaim { all: self.clone(), of })
            }
        }
    }

    /// Whether the claim with this token runs.
    pub(crate) fn contains(&self, claim: &Claim, token: Uuid) -> bool {
        let of = (claim.principal.clone(), claim.key.clone());
        self.0.lock().get(&of).is_some_and(|running| running.token == token)
    }
}

/// What runs with the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtherClaim {
    /// The same request.
    Same,
    Different,
}

/// Its request runs until this is dropped. There is one for each key of a principal.
#[derive(Debug)]
pub struct RunningClaim {
    all: RunningClaims,
    of: Owned,
}

impl Drop for RunningClaim {
    fn drop(&mut self) {
        self.all.0.lock().remove(&self.of);
    }
}

/// Marks the request's claim, in the transaction of its write. If the claim was taken over, the write is undone.
pub(crate) async fn mark(tx: &mut Transaction, claim: Option<&Claim>, process: ExecutionId) -> Result<()> {
    let Some(Claim { principal, key, token, .. }) = claim else { return Ok(()) };
    let mark = "UPDATE idempotency SET process = $1 WHERE principal = $2 AND key = $3 AND token = $4";
    let marked = tx.execute(mark, &[&process, principal, key, token]).await?;
    if marked == 1 { Ok(()) } else { Err(StoreError::Stale) }
}
