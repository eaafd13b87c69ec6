//! An action on a tunnel or a share as it is: recorded, carried out, and its outcome recorded.
//!
//! Invariant: an action that has begun ends, and its outcome is recorded, whether or not its client waits and although the database
//! fails for some time.

use crate::state::{AppState, now};
use std::{future::Future, time::Duration};
use tokio::{sync::oneshot, time::sleep};
use tracing::warn;
use wicketgate_model::{ExecutionId, FrontdoorId};
use wicketgate_store::{Action, RequestTime, Resource, StoreError, WriteContext};
use wicketgate_system::backoff::Backoff;

/// Pauses between attempts to record an outcome, and their number: two minutes together, and half a minute more if the database
/// hangs. After that, the record ends as that of a lost action.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
const ATTEMPTS: usize = 9;

/// Begins an action, which returns what came of it in a sentence, and what its client is told. Returns its execution, and where that
/// will be told: after the outcome was recorded, if the database answers.
///
/// # Errors
///
/// The action was not recorded, and did not begin.
pub(super) async fn begin<T: Send + 'static>(
    state: &AppState,
    (frontdoor, action, on): (FrontdoorId, Action, Resource),
    context: WriteContext,
    carry_out: impl Future<Output = (Result<String, String>, T)> + Send + 'static,
) -> Result<(ExecutionId, oneshot::Receiver<T>), StoreError> {
    let (begun, is_begun) = oneshot::channel();
    let (told, is_told) = oneshot::channel();
    let (state, time) = (state.clone(), RequestTime::of_task());
    // A client that hangs up while the record is committed does not end the task.
    tokio::spawn(async move {
        let execution = match time.bound(state.store.begin_action(frontdoor, action, on, &context)).await {
            Ok(execution) => execution,
            Err(error) => return drop(begun.send(Err(error))),
        };
        // Fails if the client has hung up.
        let _ = begun.send(Ok(execution));
        let (outcome, answer) = carry_out.await;
        let recorded = state.store.end_action(execution, &outcome, now()).await;
        let _ = told.send(answer);
        if let Err(error) = recorded {
            warn!(execution.id = %execution, %error, "cannot record the outcome of an action: it is tried again");
            record(&state, execution, &outcome).await;
        }
    });
    // The task always sends, unless the program is stopped.
    Ok((is_begun.await.unwrap_or(Err(StoreError::RolledBack))?, is_told))
}

async fn record(state: &AppState, execution: ExecutionId, outcome: &Result<String, String>) {
    let mut backoff = Backoff::new(FIRST, LONGEST);
    for _ in 0..ATTEMPTS {
        sleep(backoff.doubled()).await;
        if state.store.end_action(execution, outcome, now()).await.is_ok() {
            return;
        }
    }
    warn!(execution.id = %execution, ?outcome, "the outcome of an action is not recorded");
}
