//! Counts requests against the [rate limits](crate::rate_limits): by their principal once it has authenticated, and by their
//! source if there is none.
//!
//! Invariant: each request is counted once, before it is carried out.

use super::request_context::RequestContext;
use crate::{
    auth::Principal, error::ApiError, rate_limits::RateLimits, serve::places::Connection, state::AppState,
    turns::Turn,
};
use axum::{
    extract::{Request, State},
    http::{Extensions, Method},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// For a turn. As long as a query may take.
const LIST_WITHIN: Duration = Duration::from_secs(4);

/// A caller whose lists take turns with those of its customer, so that costly queries do not take all connections to the database.
#[derive(Debug, Clone)]
pub(super) struct ListReader {
    actor: String,
    tenant: String,
}

/// The turn of a list, until it is answered.
#[derive(Debug)]
pub(super) struct ListTurn {
    reader: ListReader,
    limits: Arc<RateLimits>,
    _turn: Turn,
}

impl ListReader {
    /// `None`: the operator, who has no limit, as in `rate_limits`.
    pub(super) fn of(principal: &Principal) -> Option<Self> {
        principal.tenant().map(|tenant| Self { actor: principal.actor.clone(), tenant })
    }

    /// The turn of the request's reader, if it has one.
    pub(super) async fn turn(
        state: &AppState,
        extensions: &Extensions,
    ) -> Result<Option<ListTurn>, ApiError> {
        let Some(reader) = extensions.get::<Self>().cloned() else { return Ok(None) };
        let turn = state.lists.take(&reader.tenant, LIST_WITHIN).await;
        let refused = "Other lists of this customer's accounts are being read: wait for their answers, and request fewer at a time";
        let turn = turn.ok_or_else(|| ApiError::too_many_requests(refused))?;
        Ok(Some(ListTurn { reader, limits: Arc::clone(&state.rate_limits), _turn: turn }))
    }
}

impl ListTurn {
    /// Counts the rows of the answer.
    pub(super) fn read(&self, rows: usize) {
        self.limits.read((&self.reader.actor, &self.reader.tenant), rows);
    }
}

/// The caller that has authenticated, or the refusal, as far as the limits admit it. A connection keeps its place for a caller.
pub(super) async fn admitted(
    state: &AppState,
    (method, extensions): (&Method, &Extensions),
    authenticated: Result<Principal, ApiError>,
) -> Result<Principal, ApiError> {
    match &authenticated {
        Ok(principal) => {
            RequestContext::of(extensions).is_of(&principal.actor);
            if let Some(connection) = extensions.get::<Connection>() {
                connection.is_known();
            }
            let turn = state.rate_limits.admit(principal, method)?;
            if !turn.is_zero() {
                sleep(turn).await;
            }
        }
        // A database that does not answer is no fault of the caller.
        Err(error) if error.is_of_caller() => {
            state.rate_limits.admit_stranger(RequestContext::of(extensions).address())?;
        }
        Err(_) => {}
    }
    authenticated
}

/// Wraps what needs no principal.
pub(super) async fn strangers(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let source = RequestContext::of(request.extensions()).address();
    match state.rate_limits.admit_stranger(source) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}
