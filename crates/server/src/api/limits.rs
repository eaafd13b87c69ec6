//! Counts requests against the [rate limits](crate::rate_limits): by their principal once it has authenticated, and by their
//! source if there is none.
//!
//! Invariant: each request is counted once, before it is carried out.

use crate::{
    auth::Principal,
    error::ApiError,
    serve::{ClientAddress, places::Connection},
    state::AppState,
    turns::Turn,
};
use axum::{
    extract::{FromRequestParts, Request, State},
    http::{Extensions, HeaderMap, Method, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{convert::Infallible, net::IpAddr, time::Duration};
use wicketgate_store::Reach;

/// For a turn. As long as a query may take.
const LIST_WITHIN: Duration = Duration::from_secs(4);

/// The address that a request comes from; `None` if it comes through a trusted proxy that names no address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source(pub(super) Option<IpAddr>);

impl Source {
    pub(super) fn of(state: &AppState, extensions: &Extensions, headers: &HeaderMap) -> Self {
        let peer = extensions.get::<ClientAddress>().map(|client| client.0.ip());
        Self(peer.and_then(|peer| state.external.client(peer, headers)))
    }
}

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

impl FromRequestParts<AppState> for Source {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        Ok(Self::of(state, &parts.extensions, &parts.headers))
    }
}

/// The caller that has authenticated, or the refusal, as far as the limits admit it. A connection keeps its place for a caller.
pub(super) fn admitted(
    state: &AppState,
    (method, extensions, headers): (&Method, &Extensions, &HeaderMap),
    authenticated: Result<Principal, ApiError>,
) -> Result<Principal, ApiError> {
    match &authenticated {
        Ok(principal) => {
            if let Some(connection) = extensions.get::<Connection>() {
                connection.is_known();
            }
            state.rate_limits.admit(principal, method)?;
        }
        // A database that does not answer is no fault of the caller.
        Err(error) if error.is_of_caller() => {
            state.rate_limits.admit_stranger(Source::of(state, extensions, headers).0)?;
        }
        Err(_) => {}
    }
    authenticated
}

/// Wraps what needs no principal.
pub(super) async fn strangers(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let source = Source::of(&state, request.extensions(), request.headers());
    match state.rate_limits.admit_stranger(source.0) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}
