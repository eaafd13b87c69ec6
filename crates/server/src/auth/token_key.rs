//! The JWTs that this server issues to API accounts (RFC 9068), and the key that signs them: ECDSA on P-256, ES256.
//!
//! Invariant: a token never grants more than its account has
//! now: each use looks up the account.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;

use super::{Refused, Scope};
use anyhow::Context;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode,
    errors::ErrorKind,
    jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse, ThumbprintHash},
};
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;
use wicketgate_model::ApiAccountId;
use wicketgate_store::ApiAccountRow;
use zeroize::Zeroizing;

/// Where earlier versions kept it, in the data directory.
pub(crate) const FILE: &str = "token.key";
/// The `iss` and `aud` of issued tokens. A server has no URL that all callers use.
pub const ISSUER: &str = "wicketgate";
/// Seconds for which a token is valid.
const LIFETIME: i64 = 3600;

pub struct TokenKey {
    signing: EncodingKey,
    verifying: DecodingKey,
    public: Jwk,
    kid: String,
}

/// What an issued token grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) account: ApiAccountId,
    pub(super) scopes: Vec<Scope>,
}

/// A token that was just issued.
#[derive(Debug)]
pub(crate) struct Issued {
    pub(crate) token: String,
    /// Seconds.
    pub(crate) expires_in: i64,
}

/// RFC 9068 §2.2.
#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    client_id: String,
    scope: String,
    iat: i64,
    exp: i64,
    jti: Uuid,
}

impl TokenKey {
    /// A new key: PKCS #8 (RFC 5958), DER.
    pub fn generate() -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).ok();
        made.map(|der| Zeroizing::new(der.as_ref().to_vec())).context("cannot generate a key for tokens")
    }

    /// # Errors
    /// It is no key of P-256 in PKCS #8.
    pub fn from_der(der: &[u8]) -> anyhow::Result<Self> {
        let signing = EncodingKey::from_ec_der(der);
        let mut public = Jwk::from_encoding_key(&signing, Algorithm::ES256)?;
        let kid = public.thumbprint(ThumbprintHash::SHA256)?;
        public.common.key_id = Some(kid.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        public.common.key_algorithm = Some(KeyAlgorithm::ES256);
        let verifying = DecodingKey::from_jwk(&public)?;
        Ok(Self { signing, verifying, public, kid })
    }

    /// For callers that verify issued tokens (RFC 7517).
    pub(crate) fn public(&self) -> JwkSet {
        JwkSet { keys: vec![self.public.clone()] }
    }

    /// A token for the account, valid for an hour or until the account expires. Times are Unix seconds.
    pub(crate) fn issue(
        &self,
        account: &ApiAccountRow,
        scopes: &[Scope],
        now: i64,
    ) -> anyhow::Result<Issued> {
        let end = account.spec.expires_at.map_or(i64::MAX, |end| end.as_second());
        let exp = end.min(now + LIFETIME);
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some(self.kid.clone());
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: ISSUER.to_owned(),
            sub: account.id.to_string(),
            client_id: account.id.to_string(),
            scope: written(scopes),
            iat: now,
            exp,
            jti: Uuid::now_v7(),
        };
        let token = encode(&header, &claims, &self.signing)?;
        Ok(Issued { token, expires_in: exp - now })
    }

    pub(super) fn verify(&self, token: &str) -> Result<Granted, Refused> {
        let mut rules = Validation::new(Algorithm::ES256);
        // By the clock of another server, a token may end a little earlier or later.
        rules.leeway = 0;
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        rules.set_issuer(&[ISSUER]);
        rules.set_audience(&[ISSUER]);
        let claims: Claims = decode(token, &self.verifying, &rules).map_err(|e| refused(&e))?.claims;
        let account = claims.sub.parse().map_err(|_| Refused::Invalid)?;
        Ok(Granted { account, scopes: Scope::among(claims.scope.split(' ')) })
    }
}

/// The value of `scope` (RFC 6749 §3.3).
pub(crate) fn written(scopes: &[Scope]) -> String {
    scopes.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(" ")
}

pub(super) fn refused(e: &jsonwebtoken::errors::Error) -> Refused {
    match e.kind() {
        ErrorKind::ExpiredSignature => Refused::Expired,
        _ => Refused::Invalid,
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}
