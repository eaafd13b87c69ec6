//! What a fuzz target runs: tokens of callers.

use super::*;
use crate::auth::{issuer, token_end};
use serde_json::Value;
use std::sync::LazyLock;

/// A key, and a token that it has signed.
static ISSUED: LazyLock<(TokenKey, String)> = LazyLock::new(|| {
    let Some((key, token)) = issued() else { unreachable!("a key can be made, and a token be signed") };
    (key, token)
});

fn issued() -> Option<(TokenKey, String)> {
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).ok()?;
    let key = TokenKey::from_der(der.as_ref()).ok()?;
    let account = format!("acc-{:032x}", 7);
    let claims = serde_json::json!({
        "iss": ISSUER, "aud": ISSUER, "sub": account, "client_id": account, "scope": "frontdoor.read",
        "iat": 0, "exp": i64::MAX, "jti": Uuid::nil(),
    });
    let token = encode(&Header::new(Algorithm::ES256), &claims, &key.signing).ok()?;
    Some((key, token))
}

/// No other token than one of the key is accepted: not the bytes, and not an issued token with some of its bytes changed to
/// them. Claims that the key has signed are accepted from this issuer, for it, and until they end.
pub fn jwt(bytes: &[u8]) {
    let (key, token) = &*ISSUED;
    assert!(key.verify(token).is_ok());
    if let Ok(text) = std::str::from_utf8(bytes) {
        issuer(text);
        token_end(text);
        assert!(text == token || key.verify(text).is_err());
    }
    let mut edited = token.clone().into_bytes();
    for edit in bytes.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % edited.len();
        edited[at] = edit[2];
    }
    if let Ok(edited) = String::from_utf8(edited) {
        assert!(edited == *token || key.verify(&edited).is_err(), "{edited} is accepted like {token}");
    }
    let Ok(claims) = serde_json::from_slice::<Value>(bytes) else { return };
    let Ok(signed) = encode(&Header::new(Algorithm::ES256), &claims, &key.signing) else { return };
    if let Ok(granted) = key.verify(&signed) {
        let is_for = |claim: &str| claims[claim] == ISSUER || claims[claim] == serde_json::json!([ISSUER]);
        assert!(is_for("iss") && is_for("aud"), "{claims}");
        assert_eq!(claims["sub"], granted.account.to_string());
        assert!(claims["exp"].as_f64().is_some_and(|end| end > 1e9), "{claims}");
    }
}
