//! The record of an action on a tunnel or a share as it is. Its server waits for the outcome, and records that.
//!
//! Invariant: no action begins before its execution is durable, and each execution ends.

use crate::{
    Action, ExecutionStatus, Resource, ResourceType, Result, Store, WriteContext,
    execution::{EndsWith, Execution},
    field::shown,
    transaction::Transaction,
};
use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use wicketgate_model::{ExecutionId, FrontdoorId};

/// How long an action may last whose outcome its server waits for: far longer than any does.
const LONGEST_ACTION: SignedDuration = SignedDuration::from_mins(5);

impl Store {
    /// Records that an action on a resource begins. Without this record it must not; [`Store::end_action`] records its outcome.
    pub async fn begin_action(
        &self,
        frontdoor: FrontdoorId,
        action: Action,
        on: Resource,
        context: &WriteContext,
    ) -> Result<ExecutionId> {
        self.write(context, move |write| {
            async move {
                let resource_type = match on {
                    Resource::Tunnel(_) => ResourceType::Tunnel,
                    Resource::Share(_) => ResourceType::Share,
                };
                let of = Execution::of(resource_type, &on);
                write.record(frontdoor, action, Execution { ends_with: EndsWith::Outcome, ..of }).await
            }
            .boxed()
        })
        .await
    }

    /// Records the outcome of an action: what came of it, or why it failed.
    pub async fn end_action(
        &self,
        id: ExecutionId,
        outcome: &std::result::Result<String, String>,
        at: Timestamp,
    ) -> Result<()> {
        let status = if outcome.is_ok() { ExecutionStatus::Success } else { ExecutionStatus::Failed };
        let (Ok(message) | Err(message)) = outcome;
        let update = "UPDATE execution SET status = $1, message = $2, finished_at = $3 \
                      WHERE id = $4 AND status = 'RUNNING'";
        let mut tx = self.database.begin().await?;
        tx.execute(update, &[&status, &shown(message), &at, &id]).await?;
        tx.commit().await
    }
}

/// Ends actions whose server has ended before their outcome was recorded.
pub(crate) async fn end_abandoned_actions(tx: &mut Transaction, now: Timestamp) -> Result<()> {
    let update = "UPDATE execution SET status = 'FAILED', finished_at = $1, \
                  message = 'the server ended before the outcome was known' \
                  WHERE status = 'RUNNING' AND generation = 0 AND created_at < $2";
    tx.execute(update, &[&now, &(now - LONGEST_ACTION)]).await?;
    Ok(())
}
