//! The context of a write (its actor, its time, the source of its ids), and the transaction that it runs in.

use crate::{
    Action, Claim, EventKind, ResourceType, Result, Store, StoreError,
    deferred::Deferred,
    event::NewEvent,
    execution::{Execution, Owner},
    idempotency,
    transaction::Transaction,
};
use jiff::Timestamp;
use sqlx::{AnyConnection, AssertSqlSafe, Row};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use uuid::Uuid;
use wicketgate_model::{Detail, ExecutionId, FrontdoorId, Status};

/// For one statement. On PostgreSQL it waits for the write before, whose row lock it needs.
const REVISION: Duration = Duration::from_secs(10);

/// The context of the writes of one request. Their executions share its process id.
#[derive(Debug, Clone)]
pub struct WriteContext {
    pub process: ExecutionId,
    /// As shown in `createdBy` and in executions.
    pub actor: String,
    /// Kept to the microsecond.
    pub at: Timestamp,
    /// Makes fresh version 7 UUIDs.
    pub fresh: fn() -> Uuid,
    /// When the row to be changed or deleted was last changed. If it has changed since, the write is refused as
    /// [`StoreError::Stale`]. A change of status does not count.
    pub expected: Option<Timestamp>,
    /// The claim on the request's idempotency key, which the write's transaction marks.
    pub claim: Option<Arc<Claim>>,
}

impl WriteContext {
    pub fn new(actor: impl Into<String>, at: Timestamp, fresh: fn() -> Uuid) -> Self {
        Self {
            process: ExecutionId::new(fresh()),
            actor: actor.into(),
            at,
            fresh,
            expected: None,
            claim: None,
        }
    }

    /// For the row as it was at `updated_at`, and for no later state of it.
    pub fn expecting(self, updated_at: Timestamp) -> Self {
        Self { expected: Some(updated_at), ..self }
    }

    pub(crate) fn check(&self, updated_at: Timestamp) -> Result<()> {
        if self.expected.is_none_or(|at| at == updated_at) { Ok(()) } else { Err(StoreError::Stale) }
    }
}

/// The transaction that a unit of work writes in: it changes what gateways should serve.
pub(crate) struct Write {
    pub(crate) tx: Transaction,
    /// The same for all writes of the transaction: a reader that sees one of them sees all.
    pub(crate) revision: i64,
    pub(crate) context: WriteContext,
    pub(crate) deferred: Deferred,
    store: Store,
}

impl Write {
    pub(crate) async fn begin(store: &Store, context: &WriteContext) -> Result<Self> {
        let mut tx = store.begin().await?;
        let next = sqlx::query("UPDATE revision SET value = value + 1 WHERE id = 1 RETURNING value");
        let row = timeout(REVISION, next.fetch_one(&mut *tx)).await.map_err(|_| StoreError::Late)??;
        let (revision, context) = (row.try_get(0)?, context.clone());
        Ok(Self { tx, revision, context, deferred: Deferred::default(), store: store.clone() })
    }

    /// See [`Store::locking`].
    pub(crate) fn locking(&self, select: &str, table: &str) -> AssertSqlSafe<String> {
        self.store.locking(select, table)
    }

    pub(crate) fn db(&mut self) -> &mut AnyConnection {
        &mut self.tx
    }

    /// The time of the write, for its columns.
    pub(crate) fn at(&self) -> i64 {
        self.context.at.as_microsecond()
    }

    /// Records the write, with the event of the status that it sets and the mark on the request's key.
    pub(crate) async fn record(
        &mut self,
        frontdoor: FrontdoorId,
        action: Action,
        on: Execution<'_>,
    ) -> Result<()> {
        idempotency::mark(&mut self.tx, &self.context).await?;
        self.deferred.forgets |=
            matches!(on.resource_type, ResourceType::Frontdoor | ResourceType::ApiAccount);
        let status = match (on.resource_type, action) {
            (_, Action::ReadKey) => None,
            (ResourceType::Tunnel | ResourceType::Share, Action::Delete) => Some(Status::Deleting.as_str()),
            (ResourceType::Tunnel | ResourceType::Share, _) => Some(Status::New.as_str()),
            (ResourceType::Environment, Action::Create) => Some("OFFLINE"),
            (ResourceType::Environment, Action::Delete) => Some(Status::Deleted.as_str()),
            _ => None,
        };
        let kind = match on.resource_type {
            ResourceType::Tunnel => EventKind::Tunnel,
            ResourceType::Share => EventKind::Share,
            _ => EventKind::Environment,
        };
        if let Some(status) = status {
            // A deleted environment waits for nothing; its shares have events of their own.
            let stands = status.parse().ok().filter(|_| kind != EventKind::Environment);
            let detail = stands.and_then(|s| Detail::waiting(s, self.context.at));
            let resource = on.resource.to_string();
            self.deferred.events.push(NewEvent {
                frontdoor,
                at: self.context.at,
                kind,
                resource,
                status,
                why: detail.as_ref().map(Into::into),
            });
        }
        on.insert(&mut self.tx, &self.context, Owner::Frontdoor(frontdoor), action).await
    }
}
