//! Authentication. A request is authenticated once, by its extractor, and carries a [`Principal`] afterwards.
//!
//! A token is the admin token, the secret of an API account, a JWT that this server issued to one ([`token_key`]), or a
//! JWT of the operator's identity provider ([`oidc`]). Its form selects the check; only a matching hash or signature
//! authenticates it. A browser of the web console has a [`session`] instead.

mod account;
pub mod admin_token;
pub mod client_secret;
mod credentials;
pub(crate) mod failure;
pub(crate) mod handover_token;
pub mod oidc;
pub(crate) mod passphrase;
mod principal;
pub(crate) mod scope;
pub(crate) mod session;
pub mod token_key;
mod trusted;

use crate::error::ApiError;
use axum::http::{HeaderMap, Method};
use client_secret::ClientSecret;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde::Deserialize;
use wicketgate_store::{Reach, Store};

pub(crate) use account::{expired_at, scopes};
pub(crate) use credentials::basic;
pub use principal::{Principal, Refused};
pub use scope::Scope;
pub use trusted::{AdminToken, Auth};
#[cfg(any(test, fuzzing))]
pub use {credentials::fuzz::authorization, oidc::fuzz::provider_token, token_key::fuzz::jwt};

/// By the token of the request's header or, without one, by the cookie of the web console. A malformed header is a 400, a
/// missing or wrong token a 401.
pub(crate) async fn authenticate(
    method: &Method,
    headers: &HeaderMap,
    auth: &Auth,
    store: &Store,
) -> Result<Principal, ApiError> {
    let (principal, session) = look(method, headers, auth, store).await?;
    if let Some(session) = session {
        session::used(&session, headers, store).await;
    }
    Ok(principal)
}

/// As [`authenticate`] does, and with the session if it was one. Nothing is recorded.
pub(crate) async fn look(
    method: &Method,
    headers: &HeaderMap,
    auth: &Auth,
    store: &Store,
) -> Result<(Principal, Option<session::Active>), ApiError> {
    if let Some(token) = credentials::token(headers)? {
        return Ok((authenticate_token(token.expose_secret(), auth, store).await?, None));
    }
    let active = session::active(method, headers, auth, store).await?.ok_or_else(ApiError::token_missing)?;
    Ok((active.principal.clone(), Some(active)))
}

/// A wrong token is a 401.
pub(crate) async fn authenticate_token(
    token: &str,
    auth: &Auth,
    store: &Store,
) -> Result<Principal, ApiError> {
    if auth.admin.get().is(token) {
        return Ok(Principal {
            actor: "admin".to_owned(),
            reach: Reach::All,
            organization: None,
            scopes: Scope::ALL.to_vec(),
            claim: None,
        });
    }
    if ClientSecret::is_like(token) {
        let account = account::of(store, token).await?.ok_or(Refused::Invalid)?;
        return Ok(account::principal(&account, None)?);
    }
    match (issuer(token), &auth.provider) {
        (Some(issuer), _) if issuer == token_key::ISSUER => {
            let granted = auth.tokens.verify(token)?;
            let account = store.api_account(granted.account).await?.ok_or(Refused::Invalid)?;
            Ok(account::principal(&account, Some(&granted.scopes))?)
        }
        (Some(issuer), Some(provider)) if issuer == provider.issuer() => Ok(provider.verify(token).await?),
        _ => Err(Refused::Invalid.into()),
    }
}

/// When a JWT that was verified ends; other tokens have no end of their own.
pub(crate) fn token_end(token: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        exp: i64,
    }
    let claims = jsonwebtoken::dangerous::insecure_decode_claims::<Claims>(token).ok()?;
    Timestamp::from_second(claims.exp).ok()
}

/// The issuer that a JWT claims, not verified yet: it selects the key to verify with.
fn issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        iss: String,
    }
    jsonwebtoken::dangerous::insecure_decode_claims::<Claims>(token).ok().map(|claims| claims.iss)
}
