//! The transaction of a unit of work.

use crate::{
    Action, EventKind, ResourceType, Result, StoreError, WriteContext, claim,
    database::Database,
    deferred::Deferred,
    event::NewEvent,
    execution::{self, Execution, INSTALLATION},
    transaction::Transaction,
};
use sqlx::AssertSqlSafe;
use wicketgate_model::{ApiAccountId, ExecutionId, FrontdoorId, Status};

/// The transaction that a unit of work writes in.
pub(crate) struct Write {
    pub(crate) tx: Transaction,
    /// The same for all writes of the transaction: a reader that sees one of them sees all. `None` for units that change nothing
    /// that gateways should serve.
    pub(crate) revision: Option<i64>,
    pub(crate) context: WriteContext,
    pub(crate) deferred: Deferred,
    /// Of the units before in the same transaction.
    pub(crate) kept: Deferred,
    database: Database,
}

impl Write {
    pub(crate) async fn begin(database: &Database, context: &WriteContext) -> Result<Self> {
        let tx = database.begin_in_turn().await?;
        let context = context.clone();
        let (deferred, kept) = (Deferred::default(), Deferred::default());
        Ok(Self { tx, revision: None, context, deferred, kept, database: database.clone() })
    }

    /// Takes the next revision, unless the transaction has one. No other transaction takes one before this one has ended, so that
    /// a reader which has seen revision n has missed nothing before it.
    pub(crate) async fn take_revision(&mut self) -> Result<()> {
        if self.revision.is_none() {
            let next = "UPDATE revision SET value = value + 1 WHERE id = 1 RETURNING value";
            let (revision,) = self.tx.one(next, &[]).await?;
            self.revision = Some(revision);
        }
        Ok(())
    }

    /// Fails with [`StoreError::ActorRevoked`] if the API account that writes was revoked since it authenticated: what it makes
    /// now would outlive it.
    pub(crate) async fn need_live_actor(&mut self) -> Result<()> {
        let Ok(actor) = self.context.actor.parse::<ApiAccountId>() else { return Ok(()) };
        let select = "SELECT id FROM api_account WHERE id = $1 AND revoked_at IS NULL";
        let live: Option<(ApiAccountId,)> = self.tx.find(select, &[&actor]).await?;
        live.map(|_| ()).ok_or(StoreError::ActorRevoked)
    }

    /// See [`Database::locking`].
    pub(crate) fn locking(&self, select: &str, table: &str) -> AssertSqlSafe<String> {
        self.database.locking(select, table)
    }

    /// See [`Database::sharing`].
    pub(crate) fn sharing(&self, select: &str) -> AssertSqlSafe<String> {
        self.database.sharing(select)
    }

    /// Records the write, with the event of the status that it sets and the mark on the request's key.
    pub(crate) async fn record(
        &mut self,
        frontdoor: FrontdoorId,
        action: Action,
        on: Execution<'_>,
    ) -> Result<ExecutionId> {
        claim::mark(&mut self.tx, self.context.claim.as_deref(), self.context.process).await?;
        self.tell(frontdoor, action, &on);
        on.insert(&mut self.tx, &self.context, Some(frontdoor), action).await
    }

    /// As [`record`](Self::record), for what belongs to the whole installation.
    pub(crate) async fn record_of_installation(&mut self, action: Action, on: Execution<'_>) -> Result<()> {
        claim::mark(&mut self.tx, self.context.claim.as_deref(), self.context.process).await?;
        let on = Execution { organization: Some(INSTALLATION), ..on };
        on.insert(&mut self.tx, &self.context, None, action).await.map(drop)
    }

    /// As [`record`](Self::record), for an action on many resources that creates none in a Frontdoor.
    pub(crate) async fn record_all(
        &mut self,
        action: Action,
        all: &[(FrontdoorId, Execution<'_>)],
    ) -> Result<()> {
        claim::mark(&mut self.tx, self.context.claim.as_deref(), self.context.process).await?;
        let mut records = Vec::with_capacity(all.len());
        for (frontdoor, on) in all {
            self.tell(*frontdoor, action, on);
            records.push(on.record(&self.context, Some(*frontdoor), action));
        }
        execution::insert_all(&mut self.tx, &records).await
    }

    /// Defers the event of the status that the action sets.
    fn tell(&mut self, frontdoor: FrontdoorId, action: Action, on: &Execution<'_>) {
        self.deferred.forgets |=
            matches!(on.resource_type, ResourceType::Frontdoor | ResourceType::ApiAccount);
        let status = match (on.resource_type, action) {
            (_, action) if action.changes_nothing() => None,
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
        let Some(status) = status else { return };
        // A deleted environment waits for nothing; its shares have events of their own.
        let stands = status.parse().ok().filter(|_| kind != EventKind::Environment);
        let detail = stands.and_then(|s: Status| s.waiting(self.context.at));
        self.deferred.events.push(NewEvent {
            frontdoor,
            at: self.context.at,
            kind,
            resource: on.resource.to_string(),
            status,
            why: detail.as_ref().map(Into::into),
        });
    }
}
