//! One accepted request: who, when, and where its ids come from; and the write transaction that it runs in.

use crate::{
    Action, Claim, EventKind, ResourceType, Result, Store,
    batch::Turn,
    event::{self, NewEvent},
    execution::{Execution, Owner},
    idempotency,
};
use jiff::Timestamp;
use sqlx::{AnyConnection, Row};
use std::sync::Arc;
use tokio::sync::Notify;
use uuid::Uuid;
use wicketgate_model::{Detail, ExecutionId, FrontdoorId, Status};

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
    /// Marked in the write's transaction.
    pub claim: Option<Arc<Claim>>,
}

impl Act {
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
    pub(crate) revision: i64,
    events: Vec<NewEvent>,
    told: Arc<Notify>,
}

impl Store {
    pub(crate) async fn write(&self) -> Result<Write> {
        let mut turn = self.turn().await?;
        let row = sqlx::query("UPDATE revision SET value = value + 1 WHERE id = 1 RETURNING value")
            .fetch_one(&mut **turn)
            .await?;
        Ok(Write { revision: row.try_get(0)?, turn, events: Vec::new(), told: Arc::clone(&self.told) })
    }
}

impl Write {
    pub(crate) fn db(&mut self) -> &mut AnyConnection {
        &mut self.turn
    }

    /// Returns when the write is durable.
    pub(crate) async fn commit(mut self) -> Result<()> {
        event::tell(&mut self.turn, &self.events).await?;
        self.turn.commit().await?;
        if !self.events.is_empty() {
            self.told.notify_one();
        }
        Ok(())
    }

    /// Told when the write is committed.
    pub(crate) fn tell(&mut self, event: NewEvent) {
        self.events.push(event);
    }

    /// Nothing comes into a Frontdoor that was deleted meanwhile: nobody could ever remove it again.
    async fn need_frontdoor(&mut self, frontdoor: FrontdoorId) -> Result<()> {
        sqlx::query("SELECT 1 FROM frontdoor WHERE id = $1 AND deleted_at IS NULL")
            .bind(frontdoor.to_string())
            .fetch_optional(&mut **self.turn)
            .await?
            .map(|_| ())
            .ok_or(crate::StoreError::NoFrontdoor(frontdoor))
    }

    /// The record of the write, the event of the status that it sets, and the mark on the request's key.
    pub(crate) async fn record(
        &mut self,
        act: &Act,
        frontdoor: FrontdoorId,
        action: Action,
        on: Execution<'_>,
    ) -> Result<()> {
        idempotency::mark(&mut self.turn, act).await?;
        let is_new = matches!(action, Action::Create | Action::Enrol);
        if is_new && !matches!(on.resource_type, ResourceType::Frontdoor | ResourceType::ApiAccount) {
            self.need_frontdoor(frontdoor).await?;
        }
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
            let detail = stands.and_then(|s| Detail::waiting(s, act.at));
            let resource = on.resource.to_string();
            self.tell(NewEvent { frontdoor, at: act.at, kind, resource, status, detail });
        }
        on.insert(&mut self.turn, act, Owner::Frontdoor(frontdoor), action).await
    }
}
