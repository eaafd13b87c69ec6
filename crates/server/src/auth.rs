//! Who asks. A request is authenticated once, by its extractor, and carries a [`Principal`] from there on.

pub mod admin_token;
mod credentials;

use crate::{error::ApiError, state::AppState};
use axum::http::HeaderMap;
use credentials::Credentials;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Read,
    Write,
    Admin,
}

impl Scope {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "frontdoor.read",
            Self::Write => "frontdoor.write",
            Self::Admin => "frontdoor.admin",
        }
    }
}

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// As it stands in `createdBy` and in the record of executions.
    pub actor: String,
    /// Whose Frontdoors it sees; `None` sees all.
    pub organization: Option<String>,
    pub scopes: Vec<Scope>,
}

impl Principal {
    pub(crate) fn need(&self, scope: Scope) -> Result<(), ApiError> {
        if self.scopes.contains(&scope) {
            Ok(())
        } else {
            Err(ApiError::not_authorized(format!("The token lacks the scope {}", scope.as_str())))
        }
    }

    pub(crate) fn sees(&self, organization: &str) -> bool {
        self.organization.as_deref().is_none_or(|own| own == organization)
    }
}

/// The SHA-256 of the token that may do everything. The token itself is in a file of the data directory only.
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

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// A malformed header is a 400, a missing or wrong token a 401.
pub(crate) fn authenticate(headers: &HeaderMap, state: &AppState) -> Result<Principal, ApiError> {
    let token = Credentials::of(headers)?.ok_or_else(ApiError::token_missing)?;
    if !state.admin.is(token.expose()) {
        return Err(ApiError::token_invalid());
    }
    Ok(Principal {
        actor: "admin".to_owned(),
        organization: None,
        scopes: vec![Scope::Read, Scope::Write, Scope::Admin],
    })
}
