//! Counts requests against the [rate limits](crate::rate_limits): by their principal once it has authenticated, and by their
//! source if there is none.
//!
//! Invariant: each request is counted once, before it is carried out.

use crate::{
    auth::Principal,
    error::ApiError,
    serve::{ClientAddress, places::Connection},
    state::AppState,
};
use axum::{
    extract::{FromRequestParts, Request, State},
    http::{Extensions, HeaderMap, Method, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{convert::Infallible, net::IpAddr};

/// The address that a request comes from; `None` if it comes through a trusted proxy that names no address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source(pub(super) Option<IpAddr>);

impl Source {
    pub(super) fn of(state: &AppState, extensions: &Extensions, headers: &HeaderMap) -> Self {
        let peer = extensions.get::<ClientAddress>().map(|client| client.0.ip());
        Self(peer.and_then(|peer| state.external.client(peer, headers)))
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
