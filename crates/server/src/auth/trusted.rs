//! What the credentials of callers are checked against.

use super::{oidc::Provider, token_key::TokenKey};
use sha2::{Digest, Sha256};
use std::{fmt, sync::Arc};
use subtle::ConstantTimeEq;
use wicketgate_system::Latest;

/// The SHA-256 of the token with all scopes.
#[derive(Clone, Copy)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    pub fn new(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    pub(super) fn of(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    /// Tells it from another admin token; the token does not follow from it.
    pub(super) fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(self.0))
    }

    pub(super) fn is(&self, token: &str) -> bool {
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
    pub admin: Arc<Latest<AdminToken>>,
    /// The key of the JWTs that this server issues.
    pub tokens: Arc<TokenKey>,
    /// The operator's identity provider, if there is one.
    pub provider: Option<Arc<Provider>>,
}
