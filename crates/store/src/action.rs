//! The record of an action on a tunnel or a share as it is. Its server waits for the outcome, and records that.
//!
//! Invariant: no action begins before its execution is durable, and each execution ends.

use crate::{
    Action, ExecutionStatus, Resource, ResourceType, Result, Store, WriteContext,
    execution::{EndsWith, Execution},
    field::shown,
};
use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use wicketgate_model::{ExecutionId, FrontdoorId};

/// After this time without an outcome an action is lost. Far longer than any takes, and than its server tries to record it.
const LOST_AFTER: SignedDuration = SignedDuration::from_mins(5);
const LOST: &str =
    "the outcome is not known: before it was recorded, the server ended or its database failed";

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

    /// Ends actions whose outcome was not recorded: their server has ended, or its database was away for too long. To be called
    /// periodically.
    pub async fn end_lost_actions(&self, now: Timestamp) -> Result<()> {
        let mut tx = self.database.begin_in_turn().await?;
        let update = "UPDATE execution SET status = 'FAILED', finished_at = $1, message = $2 \
                      WHERE status = 'RUNNING' AND generation = 0 AND created_at < $3";
        tx.execute(update, &[&now, &LOST, &(now - LOST_AFTER)]).await?;
        tx.commit().await
    }
}
