//! `POST /oauth/token`: issues a JWT for the secret of an API account (RFC 6749 §4.4); and the key that verifies JWTs.
//!
//! Errors have the body of RFC 6749 §5.2, which OAuth clients expect, instead of the API's own.

use super::{
    request_context::RequestContext,
    wire::{
        body::Body,
        token_request::{TokenRequest, Unreadable},
    },
};
use crate::{
    auth::{
        self, Scope, basic, client_secret,
        failure::{AuthenticationFailure, FailureCause},
        token_key::written,
    },
    error::{ApiError, OAuthErrorCode, account_expired, capitalized},
    external::LinkBase,
    reason_link,
    state::{AppState, now},
};
use axum::{
    Extension, Json,
    extract::State,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{AUTHORIZATION, CACHE_CONTROL, PRAGMA, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use jsonwebtoken::jwk::JwkSet;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::json;
use std::borrow::Cow;
use subtle::ConstantTimeEq;
use tracing::error;
use wicketgate_model::ApiAccountId;
use wicketgate_store::{ApiAccountRow, AuthenticationSubject, StoreError};

/// RFC 6749 §5.1.
#[derive(Serialize)]
struct Token {
    access_token: String,
    token_type: &'static str,
    expires_in: i64,
    scope: String,
}

/// RFC 6749 §5.2.
#[derive(Debug)]
struct OAuthError {
    status: StatusCode,
    error: OAuthErrorCode,
    description: Cow<'static, str>,
    failure: Option<AuthenticationFailure>,
}

/// The client's credentials.
struct Client {
    id: String,
    secret: SecretString,
}

pub(super) async fn token(
    State(state): State<AppState>,
    base: Option<Extension<LinkBase>>,
    (request, headers): (RequestContext, HeaderMap),
    body: Result<Body, ApiError>,
) -> Response {
    let base = base.map_or_else(String::new, |Extension(LinkBase(base))| base);
    issue(&state, &request, &headers, body).await.unwrap_or_else(|error| error.response(&base))
}

async fn issue(
    state: &AppState,
    context: &RequestContext,
    headers: &HeaderMap,
    body: Result<Body, ApiError>,
) -> Result<Response, OAuthError> {
    let body = body.map_err(|_| OAuthError::request("The body is too large, or was cut short"))?;
    let request = TokenRequest::read(headers, body).map_err(|Unreadable(why)| OAuthError::request(why))?;
    match request.grant_type.as_deref() {
        Some("client_credentials") => {}
        Some(_) => {
            return Err(OAuthError::bad(
                OAuthErrorCode::UnsupportedGrantType,
                "It must be client_credentials",
            ));
        }
        None => return Err(OAuthError::request("grant_type is missing")),
    }
    let wanted = request.scope.clone();
    let account = authenticated(state, client(headers, request)?).await?;
    context.is_of(&account.id.to_string());
    let scopes = narrowed(&auth::scopes(&account), wanted.as_deref())?;
    let issued = state.auth.tokens.issue(&account, &scopes, now().as_second()).map_err(|e| {
        error!(error = format!("{e:#}"), "a token could not be signed");
        OAuthError::unavailable("The server can't make tokens at the moment")
    })?;
    let token = Token {
        access_token: issued.token,
        token_type: "Bearer",
        expires_in: issued.expires_in,
        scope: written(&scopes),
    };
    Ok(([(CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")], Json(token)).into_response())
}

/// RFC 7517 §5. Needs no token.
pub(super) async fn keys(
    State(state): State<AppState>,
) -> ([(axum::http::HeaderName, &'static str); 1], Json<JwkSet>) {
    ([(CACHE_CONTROL, "public, max-age=300")], Json(state.auth.tokens.public()))
}

/// From `Basic` or from the body, and not from both (RFC 6749 §2.3).
fn client(headers: &HeaderMap, request: TokenRequest) -> Result<Client, OAuthError> {
    let shown = headers.get_all(AUTHORIZATION).iter().collect::<Vec<_>>();
    match (shown.as_slice(), request.client_secret) {
        ([], Some(secret)) => {
            let id = request.client_id.ok_or_else(|| OAuthError::request("client_id is missing"))?;
            Ok(Client { id, secret })
        }
        ([], None) => Err(OAuthError::client()),
        ([value], None) => {
            let (id, secret) = value.to_str().ok().and_then(basic).ok_or_else(OAuthError::client)?;
            if request.client_id.is_some_and(|other| other != id) {
                return Err(OAuthError::request("client_id is another one than that of Authorization"));
            }
            Ok(Client { id, secret })
        }
        _ => Err(OAuthError::request("The secret must be given once: in Authorization, or in the body")),
    }
}

async fn authenticated(state: &AppState, client: Client) -> Result<ApiAccountRow, OAuthError> {
    let unknown = || OAuthError::client().failing(FailureCause::ClientUnknown, None);
    let id: ApiAccountId = client.id.parse().map_err(|_| unknown())?;
    let account = state.store.api_account(id).await?.ok_or_else(unknown)?;
    let shown = client_secret::sha256(client.secret.expose_secret());
    let is_right: bool = account.spec.secret_sha256.ct_eq(&shown).into();
    if !is_right {
        return Err(OAuthError::client().failing(FailureCause::SecretWrong, Some(id)));
    }
    if let Some(end) = auth::expired_at(&account) {
        let error = OAuthError { description: account_expired(end).into(), ..OAuthError::client() };
        return Err(error.failing(FailureCause::AccountExpired, Some(id)));
    }
    Ok(account)
}

/// The requested scopes, which the account must have; all of the account's if none is requested.
fn narrowed(own: &[Scope], wanted: Option<&str>) -> Result<Vec<Scope>, OAuthError> {
    let Some(wanted) = wanted else { return Ok(own.to_vec()) };
    let names: Vec<_> = wanted.split(' ').filter(|name| !name.is_empty()).collect();
    let known = |name: &&str| own.iter().any(|scope| scope.as_str() == *name);
    if names.is_empty() || !names.iter().all(known) {
        return Err(OAuthError::bad(
            OAuthErrorCode::InvalidScope,
            "The account does not have all of these scopes",
        ));
    }
    Ok(own.iter().copied().filter(|scope| names.contains(&scope.as_str())).collect())
}

impl OAuthError {
    fn bad(error: OAuthErrorCode, description: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, description: description.into(), failure: None }
    }

    fn request(description: &'static str) -> Self {
        Self::bad(OAuthErrorCode::InvalidRequest, description)
    }

    /// The same for an unknown client and a wrong secret.
    fn client() -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            error: OAuthErrorCode::InvalidClient,
            description: "The client id or its secret is missing or wrong".into(),
            failure: None,
        }
    }

    fn unavailable(description: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            error: OAuthErrorCode::TemporarilyUnavailable,
            description: description.into(),
            failure: None,
        }
    }

    fn failing(self, cause: FailureCause, account: Option<ApiAccountId>) -> Self {
        let subject = account.map(AuthenticationSubject::Account);
        Self { failure: Some(AuthenticationFailure { cause, subject }), ..self }
    }

    fn response(self, base: &str) -> Response {
        let error = self.error.as_str();
        let answer = json!({
            "error": error,
            "error_description": self.description,
            "error_uri": format!("{base}{}", reason_link::path(error)),
        });
        let headers = [(CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")];
        let mut response = (self.status, headers, Json(answer)).into_response();
        if let Some(failure) = self.failure {
            response.extensions_mut().insert(failure);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"wicketgate\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<StoreError> for OAuthError {
    fn from(e: StoreError) -> Self {
        error!(error = %e, "database failed");
        Self::unavailable(capitalized(&e.fault().to_string()))
    }
}
