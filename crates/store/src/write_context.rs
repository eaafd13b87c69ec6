//! The context of a write: its actor, the request that it is made for, its time and the source of its ids.

use crate::{Claim, Result, StoreError};
use jiff::Timestamp;
use std::{net::IpAddr, sync::Arc};
use uuid::Uuid;
use wicketgate_model::{ExecutionId, Quotas};

/// The context of the writes of one request. Their executions share its process id.
#[derive(Debug, Clone)]
pub struct WriteContext {
    pub process: ExecutionId,
    /// As shown in `createdBy` and in executions.
    pub actor: String,
    pub origin: RequestOrigin,
    /// Kept to the microsecond.
    pub at: Timestamp,
    /// Makes fresh version 7 UUIDs.
    pub fresh: fn() -> Uuid,
    /// When the row to be changed or deleted was last changed. If it has changed since, the write is refused as
    /// [`StoreError::Stale`]. A change of status does not count.
    pub expected: Option<Timestamp>,
    /// The claim on the request's idempotency key, which the write's transaction marks.
    pub claim: Option<Arc<Claim>>,
    /// The operator has decided that the tunnel of this write has its peer's address, whichever has it now.
    pub takes_peer_address: bool,
    /// The limits of the installation.
    pub quotas: Arc<Quotas>,
}

/// The request that a write is made for, as executions keep it. The server's own writes have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestOrigin {
    /// The client's; `None` if a proxy does not name it.
    pub address: Option<IpAddr>,
    pub request_id: Option<String>,
}

impl WriteContext {
    pub fn new(actor: impl Into<String>, at: Timestamp, fresh: fn() -> Uuid) -> Self {
        Self {
            process: ExecutionId::new(fresh()),
            actor: actor.into(),
            origin: RequestOrigin::default(),
            at,
            fresh,
            expected: None,
            claim: None,
            takes_peer_address: false,
            quotas: Arc::default(),
        }
    }

    pub fn of_request(self, origin: RequestOrigin) -> Self {
        Self { origin, ..self }
    }

    /// For the row as it was at `updated_at`, and for no later state of it.
    pub fn expecting(self, updated_at: Timestamp) -> Self {
        Self { expected: Some(updated_at), ..self }
    }

    pub(crate) fn check(&self, updated_at: Timestamp) -> Result<()> {
        if self.expected.is_none_or(|at| at == updated_at) { Ok(()) } else { Err(StoreError::Stale) }
    }
}
