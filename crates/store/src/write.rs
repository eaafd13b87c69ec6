//! One accepted request: who, when, and where its ids come from; and the write transaction that it runs in.

use crate::{
    Action, Claim, EventKind, ResourceType, Result, Store,
    batch::Turn,
    deferred::Deferred,
    event::NewEvent,
    execution::{Execution, Owner},
    idempotency,
};
use jiff::Timestamp;
use sqlx::{AnyConnection, AssertSqlSafe};
use std::sync::Arc;
use tokio::sync::Notify;
use uuid::Uuid;
use wicketgate_model::{Detail, ExecutionId, FrontdoorId, Status};

/// Who writes, and when. Executions of one request share its process id.
#[derive(Debug, Clone)]
pub struct WriteContext {
    pub process: ExecutionId,
    /// As it stands in `createdBy` and in the record of executions.
    pub actor: String,
    /// Kept to the microsecond.
    pub at: Timestamp,
    /// Makes fresh version 7 UUIDs.
    pub fresh: fn() -> Uuid,
    /// The row that is to be changed or deleted was last changed then; if it was changed since, the write is refused as
    /// [`StoreError::Stale`](crate::StoreError::Stale). A change of status is none.
    pub expected: Option<Timestamp>,
    /// Marked in the write's transaction.
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
    /// Of all writes that share its commit: whoever sees one of them sees all.
    pub(crate) revision: i64,
    pub(crate) deferred: Deferred,
    events_committed: Arc<Notify>,
}

impl Store {
    pub(crate) async fn write(&self) -> Result<Write> {
        let turn = self.turn().await?;
        let revision = turn.revision();
        Ok(Write {
            turn,
            revision,
            deferred: Deferred::default(),
            events_committed: Arc::clone(&self.events_committed),
        })
    }
}

impl Write {
    /// See [`Store::locking`].
    pub(crate) fn locking(&self, select: &str, table: &str) -> AssertSqlSafe<String> {
        self.turn.store().locking(select, table)
    }

    pub(crate) fn db(&mut self) -> &mut AnyConnection {
        &mut self.turn
    }

    /// Returns when the write is durable.
    pub(crate) async fn commit(self) -> Result<()> {
        let tells = !self.deferred.events.is_empty();
        self.turn.commit(self.deferred).await?;
        if tells {
            self.events_committed.notify_one();
        }
        Ok(())
    }

    /// Told when the write is committed.
    pub(crate) fn tell(&mut self, event: NewEvent) {
        self.deferred.events.push(event);
    }

    /// The record of the write, the event of the status that it sets, and the mark on the request's key.
    pub(crate) async fn record(
        &mut self,
        context: &WriteContext,
        frontdoor: FrontdoorId,
        action: Action,
        on: Execution<'_>,
    ) -> Result<()> {
        idempotency::mark(&mut self.turn, context).await?;
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
            // An environment that is deleted waits for nothing; its shares say for themselves how far they are.
            let stands = crate::columns::status(status).filter(|_| kind != EventKind::Environment);
            let detail = stands.and_then(|s| Detail::waiting(s, context.at));
            let resource = on.resource.to_string();
            self.tell(NewEvent {
                frontdoor,
                at: context.at,
                kind,
                resource,
                status,
                why: detail.as_ref().map(Into::into),
            });
        }
        on.insert(&mut self.turn, context, Owner::Frontdoor(frontdoor), action).await
    }
}
