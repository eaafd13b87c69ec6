//! A provider's keys (RFC 7517): those that verify signatures of supported algorithms.
//!
//! Invariant: each key has one algorithm, which follows from its type. Symmetric keys are ignored.

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

pub(super) const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
/// How long keys are used while the provider does not answer: long enough for an outage of a day. A withdrawn key is
/// accepted for no longer.
pub(super) const KEPT: Duration = Duration::from_secs(24 * 3600);
/// No provider has so many.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Keys {
    keys: Vec<Key>,
    /// `None`: never.
    since: Option<Instant>,
}

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Keys {
    /// The usable keys of a JWK set; others are ignored.
    pub(super) fn new(set: &Value) -> Self {
        let all = set["keys"].as_array().into_iter().flatten().take(MOST);
        Self { keys: all.filter_map(Key::read).collect(), since: Some(Instant::now()) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// A token without a key id is verified with the only key for its algorithm, if there is exactly one.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        self.since.filter(|since| since.elapsed() < KEPT)?;
        let mut found = self
            .keys
            .iter()
            .filter(|key| key.algorithm == algorithm && (kid.is_none() || key.kid.as_deref() == kid));
        match (found.next(), found.next()) {
            (Some(key), None) => Some(&key.key),
            _ => None,
        }
    }
}

impl Key {
    fn read(value: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => Algorithm::ES256,
            AlgorithmParameters::OctetKeyPair(ed) if ed.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
            _ => return None,
        };
        let common = &jwk.common;
        let is_for_signatures = common.public_key_use.as_ref().is_none_or(|u| *u == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|ops| ops.contains(&KeyOperations::Verify))
            && common.key_algorithm.is_none_or(|a| a == KeyAlgorithm::from(algorithm));
        if !is_for_signatures {
            return None;
        }
        Some(Self { kid: common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(&jwk).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ec() -> Value {
        // RFC 7515 §A.3.1.
        json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
               "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})
    }

    fn with(changes: &Value) -> Value {
        let mut key = ec();
        key.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        key
    }

    #[test]
    fn only_keys_of_supported_signature_algorithms_are_read() {
        for (key, is_read) in [
            (ec(), true),
            (with(&json!({"use": "sig", "alg": "ES256", "key_ops": ["verify"], "x5c": ["…"]})), true),
            (with(&json!({"use": "enc"})), false),
            (with(&json!({"alg": "ECDH-ES"})), false),
            (with(&json!({"key_ops": ["deriveKey"]})), false),
            (with(&json!({"crv": "P-384"})), false),
            (with(&json!({"x": "not base64!"})), false),
            (json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}), false),
            // RFC 8037 §A.2.
            (
                json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
                true,
            ),
            (
                json!({"kty": "OKP", "crv": "X25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
                false,
            ),
            (json!({"kty": "RSA", "n": "sXchDaQ", "e": "AQAB"}), true),
            (json!({"kty": "RSA", "n": "sXchDaQ", "e": "AQAB", "alg": "PS256"}), false),
            (json!({"kty": "new"}), false),
            (json!(7), false),
        ] {
            // An unreadable key does not hide the others.
            let keys = Keys::new(&json!({"keys": [key, 7]}));
            assert_eq!(!keys.is_empty(), is_read, "{key}");
        }
        assert!(Keys::new(&json!({"keys": 7})).is_empty() && Keys::new(&json!([])).is_empty());
    }

    #[test]
    fn a_key_is_found_by_its_id_and_its_algorithm() {
        let (a, b) = (with(&json!({"kid": "a"})), with(&json!({"kid": "b"})));
        let two = Keys::new(&json!({"keys": [a, b]}));
        assert!(two.find(Some("a"), Algorithm::ES256).is_some());
        assert!(two.find(Some("a"), Algorithm::RS256).is_none());
        assert!(two.find(Some("c"), Algorithm::ES256).is_none());
        assert!(
            two.find(None, Algorithm::ES256).is_none(),
            "a token without a key id is ambiguous with two keys"
        );
        let one = Keys::new(&json!({"keys": [a]}));
        assert!(one.find(None, Algorithm::ES256).is_some());
        assert!(Keys::default().find(None, Algorithm::ES256).is_none());
    }
}
