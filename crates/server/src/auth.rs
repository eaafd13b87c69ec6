//! Authentication. A request is authenticated once, by its extractor, and carries a [`Principal`] afterwards.
//!
//! A token is the admin token, the secret of an API account, a JWT that this server issued to one ([`token_key`]), or a
//! JWT of the operator's identity provider ([`oidc`]). Its form selects the check; only a matching hash or signature
//! authenticates it.

pub mod admin_token;
pub mod client_secret;
mod credentials;
pub mod oidc;
mod principal;
pub(crate) mod scope;
pub mod token_key;

use crate::error::ApiError;
use axum::http::HeaderMap;
use client_secret::ClientSecret;
use jiff::Timestamp;
use oidc::Provider;
use secrecy::ExposeSecret;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{fmt, sync::Arc};
use subtle::ConstantTimeEq;
use token_key::TokenKey;
use wicketgate_store::{ApiAccountRow, Reach, Store};

pub(crate) use credentials::basic;
pub use principal::{Principal, Refused};
pub use scope::Scope;

/// The SHA-256 of the token with all scopes. The token itself is only in a file of the data directory.
#[derive(Clone, Copy)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    pub fn new(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    fn is(&self, token: &str) -> bool {
        let shown: [u8; 32] = Sha256::digest(token).into();
        self.0.ct_eq(&shown).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// Everything that tokens are checked against. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Auth {
    pub admin: AdminToken,
    /// The key of the JWTs that this server issues.
    pub tokens: Arc<TokenKey>,
    /// The operator's identity provider, if there is one.
    pub provider: Option<Arc<Provider>>,
}

/// A malformed header is a 400, a missing or wrong token a 401.
pub(crate) async fn authenticate(
    headers: &HeaderMap,
    auth: &Auth,
    store: &Store,
) -> Result<Principal, ApiError> {
    let token = credentials::token(headers)?.ok_or_else(ApiError::token_missing)?;
    let token = token.expose_secret();
    if auth.admin.is(token) {
        return Ok(Principal {
            actor: "admin".to_owned(),
            reach: Reach::All,
            scopes: Scope::ALL.to_vec(),
            claim: None,
        });
    }
    if ClientSecret::is_like(token) {
        let account = account_of(store, token).await?.ok_or(Refused::Invalid)?;
        return Ok(principal(&account, None)?);
    }
    match (issuer(token), &auth.provider) {
        (Some(issuer), _) if issuer == token_key::ISSUER => {
            let granted = auth.tokens.verify(token)?;
            let account = store.api_account(granted.account).await?.ok_or(Refused::Invalid)?;
            Ok(principal(&account, Some(&granted.scopes))?)
        }
        (Some(issuer), Some(provider)) if issuer == provider.issuer() => Ok(provider.verify(token).await?),
        _ => Err(Refused::Invalid.into()),
    }
}

/// The account with this secret. It may have expired.
async fn account_of(store: &Store, secret: &str) -> Result<Option<ApiAccountRow>, ApiError> {
    let shown = client_secret::sha256(secret);
    let account = store.api_account_with_secret(&shown).await?;
    Ok(account.filter(|a| a.spec.secret_sha256.ct_eq(&shown).into()))
}

/// The account with the scopes that both it and its token have: the account's may have been reduced since.
fn principal(account: &ApiAccountRow, granted: Option<&[Scope]>) -> Result<Principal, Refused> {
    if has_expired(account) {
        return Err(Refused::Expired);
    }
    let mut scopes = scopes(account);
    scopes.retain(|scope| granted.is_none_or(|granted| granted.contains(scope)));
    Ok(Principal { actor: account.id.to_string(), reach: account.reach(), scopes, claim: None })
}

pub(crate) fn scopes(account: &ApiAccountRow) -> Vec<Scope> {
    Scope::among(account.spec.scopes.iter().map(String::as_str))
}

pub(crate) fn has_expired(account: &ApiAccountRow) -> bool {
    account.spec.expires_at.is_some_and(|end| end <= Timestamp::now())
}

/// The issuer that a JWT claims, not verified yet: it selects the key to verify with.
fn issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Claims {
        iss: String,
    }
    jsonwebtoken::dangerous::insecure_decode_claims::<Claims>(token).ok().map(|claims| claims.iss)
}
