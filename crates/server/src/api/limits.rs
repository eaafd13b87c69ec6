//! Counts requests against the [rate limits](crate::rate_limits): by their principal once it has authenticated, and by their
//! source if there is none.
//!
//! Invariant: each request is counted once, before it is carried out.

use super::request_context::RequestContext;
use crate::{auth::Principal, error::ApiError, serve::places::Connection, state::AppState, turns::Turn};
use axum::{
    extract::{Request, State},
    http::{Extensions, Method},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::time::Duration;
use wicketgate_store::Reach;

/// For a turn. As long as a query may take.
const LIST_WITHIN: Duration = Duration::from_secs(4);

/// A caller that takes turns with its other lists, so that its costly queries do not take all connections to the database.
#[derive(Debug, Clone)]
pub(super) struct ListReader(String);

impl ListReader {
    /// `None`: the admin token, which has no limit, as in `rate_limits`.
    pub(super) fn of(principal: &Principal) -> Option<Self> {
        (principal.reach != Reach::All).then(|| Self(principal.actor.clone()))
    }

    /// The turn of the request's reader, if it has one.
    pub(super) async fn turn(state: &AppState, extensions: &Extensions) -> Result<Option<Turn>, ApiError> {
        let Some(Self(actor)) = extensions.get() else { return Ok(None) };
        let turn = state.lists.take(actor, LIST_WITHIN).await;
        let refused =
            "Other lists of this account are being read: wait for their answers, and request fewer at a time";
        turn.map(Some).ok_or_else(|| ApiError::too_many_requests(refused))
    }
}

/// The caller that has authenticated, or the refusal, as far as the limits admit it. A connection keeps its place for a caller.
pub(super) fn admitted(
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
            state.rate_limits.admit(principal, method)?;
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
