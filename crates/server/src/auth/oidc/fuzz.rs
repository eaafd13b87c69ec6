//! What a fuzz target runs: tokens and keys of an identity provider.

use super::*;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use jsonwebtoken::{EncodingKey, encode, jwk::Jwk};
use serde_json::json;
use std::sync::LazyLock;

/// A provider with a key, and a token that it has issued.
struct Issuer {
    config: ProviderConfig,
    keys: Keys,
    signing: EncodingKey,
    token: String,
}

static ISSUER: LazyLock<Issuer> = LazyLock::new(|| {
    let Some(issuer) = issuer() else { unreachable!("a key can be made, and a token be signed") };
    issuer
});

fn issuer() -> Option<Issuer> {
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).ok()?;
    let signing = EncodingKey::from_ec_der(der.as_ref());
    let jwk = Jwk::from_encoding_key(&signing, Algorithm::ES256).ok()?;
    let config = ProviderConfig {
        issuer: "https://idp.example".to_owned(),
        audiences: vec!["wicketgate".to_owned(), "console".to_owned()],
        organization_claim: "org".to_owned(),
        scope_claim: "scope".to_owned(),
        client: None,
    };
    let claims =
        json!({"iss": config.issuer, "aud": "wicketgate", "sub": "somebody", "org": "acme", "exp": i64::MAX});
    let token = encode(&Header::new(Algorithm::ES256), &claims, &signing).ok()?;
    Some(Issuer { keys: Keys::new(&json!({"keys": [jwk]})), config, signing, token })
}

impl Issuer {
    fn verify(&self, token: &str) -> Result<Principal, Refused> {
        let header = header(token)?;
        let key = self.keys.find(header.kid.as_deref(), header.alg).ok_or(Refused::Invalid)?;
        self.config.verify(token, header.alg, key)
    }
}

/// No other token than one of the provider's key is accepted: not the bytes, and not an issued token with some of its bytes changed
/// to them. Of claims that the key has signed, the caller is as they say, and no more; and no set of keys is too strange to be read.
pub fn provider_token(bytes: &[u8]) {
    let issuer = &*ISSUER;
    assert!(issuer.verify(&issuer.token).is_ok());
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert!(text == issuer.token || issuer.verify(text).is_err());
    }
    let mut edited = issuer.token.clone().into_bytes();
    for edit in bytes.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % edited.len();
        edited[at] = edit[2];
    }
    if let Ok(edited) = String::from_utf8(edited) {
        assert!(edited == issuer.token || issuer.verify(&edited).is_err(), "{edited} is accepted");
    }
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    let keys = Keys::new(&value);
    for algorithm in keys::ALGORITHMS {
        // With a key of anyone else, the issued token is refused.
        if let Some(key) = keys.find(None, algorithm) {
            assert!(issuer.config.verify(&issuer.token, algorithm, key).is_err());
        }
    }
    let Ok(signed) = encode(&Header::new(Algorithm::ES256), &value, &issuer.signing) else { return };
    if let Ok(caller) = issuer.verify(&signed) {
        is_as_claimed(&caller, &value, &issuer.config);
    }
}

fn is_as_claimed(caller: &Principal, claims: &Value, config: &ProviderConfig) {
    let is_for_us = |audience: &Value| config.audiences.iter().any(|own| audience == own);
    let audiences = claims["aud"].as_array();
    assert!(is_for_us(&claims["aud"]) || audiences.is_some_and(|all| all.iter().any(is_for_us)), "{claims}");
    assert!(claims["iss"] == config.issuer || claims["iss"] == json!([config.issuer]), "{claims}");
    assert!(claims["exp"].as_f64().is_some_and(|end| end > 1e9), "{claims}");
    let Some(subject) = caller.actor.strip_prefix("oidc:") else {
        unreachable!("the actor {}", caller.actor)
    };
    assert!(claims["sub"] == subject && !subject.is_empty(), "{claims}");
    let Reach::Organization(organization) = &caller.reach else { unreachable!("{:?}", caller.reach) };
    assert!(claims["org"] == organization.as_str() && !organization.is_empty(), "{claims}");
    assert!(![subject, organization].iter().any(|text| text.chars().any(char::is_control)), "{claims}");
    let words: Vec<&str> = match &claims["scope"] {
        Value::String(text) => text.split(' ').collect(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    assert!(caller.scopes.iter().all(|scope| words.contains(&scope.as_str())), "{claims}");
}

/// Otherwise no caller is compared with its claims.
#[cfg(test)]
#[test]
fn the_seeds_have_claims_that_are_accepted() {
    for seed in ["claims", "lists"] {
        let file = format!("{}/../../fuzz/seeds/provider_token/{seed}", env!("CARGO_MANIFEST_DIR"));
        let claims: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let signed = encode(&Header::new(Algorithm::ES256), &claims, &ISSUER.signing).unwrap();
        let caller = ISSUER.verify(&signed).unwrap();
        assert!(!caller.scopes.is_empty(), "{seed}");
    }
}
