//! One accepted request: who, when, and where its ids come from; and the write transaction that it runs in.

use crate::{Action, Result, Store, execution::Execution};
use jiff::Timestamp;
use sqlx::{Any, AnyConnection, Row, Transaction};
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
}

impl Act {
    pub fn new(actor: impl Into<String>, at: Timestamp, fresh: fn() -> Uuid) -> Self {
        Self { process: ExecutionId::new(fresh()), actor: actor.into(), at, fresh }
    }
}

/// A transaction that changes what gateways should serve. Stamped with a revision of its own; dropped without
/// [`Write::commit`], it never was.
pub(crate) struct Write {
    tx: Transaction<'static, Any>,
    pub(crate) revision: i64,
}

impl Store {
    pub(crate) async fn write(&self) -> Result<Write> {
        let mut tx = self.begin().await?;
        let row = sqlx::query("UPDATE revision SET value = value + 1 WHERE id = 1 RETURNING value")
            .fetch_one(&mut *tx)
            .await?;
        Ok(Write { revision: row.try_get(0)?, tx })
    }
}

impl Write {
    pub(crate) fn db(&mut self) -> &mut AnyConnection {
        &mut self.tx
    }

    pub(crate) async fn commit(self) -> Result<()> {
        Ok(self.tx.commit().await?)
    }

    pub(crate) async fn record(
        &mut self,
        act: &Act,
        frontdoor: FrontdoorId,
        action: Action,
        on: Execution<'_>,
    ) -> Result<()> {
        on.insert(&mut self.tx, act, frontdoor, action).await
    }
}
