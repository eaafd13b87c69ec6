//! One accepted request: who, when, and where its ids come from; and the write transaction that it runs in.

use crate::{Action, Result, Store, batch::Turn, execution::Execution};
use jiff::Timestamp;
use sqlx::{AnyConnection, Row};
use uuid::Uuid;
use wicketgate_model::{ExecutionId, FrontdoorId};

/// Who writes, and when. Executions of one act share its process id.
#[derive(Debug, Clone)]
pub struct Act {
    pub process: ExecutionId,
    /// As it stands in `createdBy` and in the record of executions.
    pub actor: String,
    /// Kept to the microsecond.
    pub at: Timestamp,
    /// Makes fresh version 7 UUIDs.
    pub fresh: fn() -> Uuid,
    /// The row that is to be changed or deleted was last changed then; if it was changed since, the act is refused as
    /// [`StoreError::Stale`](crate::StoreError::Stale). A change of status is none.
    pub expected: Option<Timestamp>,
}

impl Act {
    pub fn new(actor: impl Into<String>, at: Timestamp, fresh: fn() -> Uuid) -> Self {
        Self { process: ExecutionId::new(fresh()), actor: actor.into(), at, fresh, expected: None }
    }

    /// For the row that was last changed at `updated_at`, and for no later state of it.
    pub fn expecting(self, updated_at: Timestamp) -> Self {
        Self { expected: Some(updated_at), ..self }
    }

    pub(crate) fn check(&self, updated_at: Timestamp) -> Result<()> {
        if self.expected.is_none_or(|at| at == updated_at) { Ok(()) } else { Err(crate::StoreError::Stale) }
    }
}

/// A transaction that changes what gateways should serve. Stamped with a revision of its own; dropped without
/// [`Write::commit`], it never was.
pub(crate) struct Write {
    turn: Turn,
    pub(crate) revision: i64,
}

impl Store {
    pub(crate) async fn write(&self) -> Result<Write> {
        let mut turn = self.turn().await?;
        let row = sqlx::query("UPDATE revision SET value = value + 1 WHERE id = 1 RETURNING value")
            .fetch_one(&mut **turn)
            .await?;
        Ok(Write { revision: row.try_get(0)?, turn })
    }
}

impl Write {
    pub(crate) fn db(&mut self) -> &mut AnyConnection {
        &mut self.turn
    }

    /// Returns when the write is durable.
    pub(crate) async fn commit(self) -> Result<()> {
        self.turn.commit().await
    }

    pub(crate) async fn record(
        &mut self,
        act: &Act,
        frontdoor: FrontdoorId,
        action: Action,
        on: Execution<'_>,
    ) -> Result<()> {
        on.insert(&mut self.turn, act, frontdoor, action).await
    }
}
