//! `/console/session`: the web console's session, begun with a token. Its cookie then authenticates the console's calls.

use super::{
    access::Answer,
    limits::{admitted, admitted_to_sign_in},
    request_context::RequestContext,
    wire::{
        body::Body,
        query::Query,
        session::{CookieScope, Session, token},
    },
};
use crate::{
    auth::{
        Principal, authenticate_token,
        session::{self, Active, SessionToken},
        token_end,
    },
    error::ApiError,
    external::LinkBase,
    serve::Encrypted,
    state::{AppState, now},
};
use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{
        HeaderMap, StatusCode,
        header::{CACHE_CONTROL, SET_COOKIE},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::json;
use tracing::info;

const NOT_STORED: [(axum::http::HeaderName, &str); 1] = [(CACHE_CONTROL, "no-store")];

/// How this request's browser keeps cookies.
impl FromRequestParts<AppState> for CookieScope {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let is_encrypted = parts.extensions.get::<Encrypted>().is_some_and(|encrypted| encrypted.0);
        Ok(Self::new(parts.extensions.get::<LinkBase>(), is_encrypted))
    }
}

/// The session of the request's cookie.
pub(super) struct InSession(Active);

impl FromRequestParts<AppState> for InSession {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let active = session::active(&parts.method, &parts.headers, &state.auth, &state.store).await;
        let active = active.and_then(|active| active.ok_or_else(ApiError::token_missing));
        let caller = active.as_ref().map(|active| active.principal.clone()).map_err(ApiError::clone);
        admitted(state, (&parts.method, &parts.extensions), caller).await?;
        Ok(Self(active?))
    }
}

/// A page of another origin cannot send JSON, so that it cannot sign its visitor in as someone else.
pub(super) async fn begin(
    State(state): State<AppState>,
    request: RequestContext,
    scope: CookieScope,
    body: Body,
) -> Answer {
    let shown = token(body.object()?)?;
    let principal = authenticate_token(shown.expose_secret(), &state.auth, &state.store).await?;
    request.is_of(&principal.actor);
    let (active, cookie) = begun(&state, principal, &scope, token_end(shown.expose_secret())).await?;
    let answer = (StatusCode::CREATED, NOT_STORED, [(SET_COOKIE, cookie)], Json(Session::of(&active)));
    Ok(answer.into_response())
}

/// Begins a session of a caller that has proven itself. Returns it with its cookie.
pub(super) async fn begun(
    state: &AppState,
    principal: Principal,
    scope: &CookieScope,
    ends: Option<Timestamp>,
) -> Result<(Active, String), ApiError> {
    admitted_to_sign_in(state, &principal).await?;
    let (token, now) = (SessionToken::generate()?, now());
    let new = session::begun_by(&principal, &state.auth, &token, now, ends)?;
    state.store.begin_session(&new).await?;
    info!(actor = principal.actor, "a session of the web console began");
    let seconds = new.expires_at.as_second() - now.as_second();
    let cookie = scope.session(&token, seconds);
    let session = wicketgate_store::ConsoleSession { spec: new, used_at: now };
    Ok((Active { token, session, principal }, cookie))
}

pub(super) async fn show(
    InSession(active): InSession,
    State(state): State<AppState>,
    headers: HeaderMap,
) -> Response {
    session::used(&active, &headers, &state.store).await;
    (NOT_STORED, Json(Session::of(&active))).into_response()
}

/// From the next request on, the cookie is refused; with `all`, those of the actor's other browsers, too.
pub(super) async fn end(
    InSession(active): InSession,
    State(state): State<AppState>,
    scope: CookieScope,
    query: Query,
) -> Answer {
    let [all] = query.values(["all"])?;
    match all.as_deref() {
        Some("true") => state.store.end_sessions(&active.principal.actor).await?,
        None | Some("false") => state.store.end_session(&active.session.spec.token_sha256).await?,
        Some(_) => return Err(ApiError::bad_request("Value for all must be of type boolean")),
    }
    info!(actor = active.principal.actor, "a session of the web console ended");
    Ok((StatusCode::NO_CONTENT, NOT_STORED, [(SET_COOKIE, scope.no_session())]).into_response())
}

/// What the sign-in page needs before anyone has signed in.
pub(super) async fn options(State(state): State<AppState>) -> Response {
    let provider = state.auth.provider.as_ref().filter(|provider| provider.signs_in());
    let mut options = json!({"version": env!("CARGO_PKG_VERSION")});
    if let Some(provider) = provider {
        options["identityProvider"] = json!({"issuer": provider.issuer()});
    }
    (NOT_STORED, Json(options)).into_response()
}
