//! The `Authorization` header: `Bearer` (RFC 6750 §2.1), `Basic` (RFC 7617), and the raw `username:token` after
//! `Basic` that older clients send. Of a user name and token, only the token counts.

use crate::error::ApiError;
use axum::http::{HeaderMap, header::AUTHORIZATION};
use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use secrecy::SecretString;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The token that a request presents; `None` without the header.
pub(crate) fn token(headers: &HeaderMap) -> Result<Option<SecretString>, ApiError> {
    let values: Vec<_> = headers.get_all(AUTHORIZATION).iter().collect();
    let token = match values.as_slice() {
        [] => return Ok(None),
        [value] => value.to_str().ok().and_then(parse),
        _ => None,
    };
    let malformed = "Authorization must be Bearer and a token, or Basic and username:token in base64";
    token.map(|token| Some(token.into())).ok_or_else(|| ApiError::bad_request(malformed))
}

fn parse(value: &str) -> Option<String> {
    let (scheme, rest) = scheme(value)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        // RFC 6750 §2.1, b64token.
        let letter = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b);
        (!rest.is_empty() && rest.bytes().all(letter)).then(|| rest.to_owned())
    } else if scheme.eq_ignore_ascii_case("basic") {
        user_and_token(rest).map(|(_, token)| token).filter(|t| !t.is_empty())
    } else {
        None
    }
}

/// The user name and the password of `Basic`; `None` for another scheme or a malformed value.
pub(crate) fn basic(value: &str) -> Option<(String, SecretString)> {
    let (_, rest) = scheme(value).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))?;
    user_and_token(rest).map(|(user, password)| (user, password.into()))
}

fn scheme(value: &str) -> Option<(&str, &str)> {
    value.trim().split_once(' ').map(|(scheme, rest)| (scheme, rest.trim_start()))
}

fn user_and_token(text: &str) -> Option<(String, String)> {
    // Base64 has no colon, so the two forms cannot be confused.
    let pair = if text.contains(':') {
        text.to_owned()
    } else {
        String::from_utf8(BASE64.decode(text).ok()?).ok()?
    };
    pair.split_once(':').map(|(user, token)| (user.to_owned(), token.to_owned()))
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz {
    use super::*;
    use axum::http::HeaderValue;
    use base64::engine::general_purpose;
    use secrecy::ExposeSecret;

    /// A token is that of the header that is made of it; user and password are those of a header that is made of them.
    pub fn authorization(value: &[u8]) {
        let Ok(value) = HeaderValue::from_bytes(value) else { return };
        let headers = |value| HeaderMap::from_iter([(AUTHORIZATION, value)]);
        let text = value.to_str().unwrap_or_default();
        if let Ok(token) = token(&headers(value.clone())) {
            let token = token.unwrap_or_default();
            assert!(!token.expose_secret().is_empty());
            let is_bearer = text.trim_start().get(..6).is_some_and(|s| s.eq_ignore_ascii_case("bearer"));
            let again = if is_bearer { parse(&format!("Bearer {}", token.expose_secret())) } else { None };
            assert!(again.is_none_or(|again| again == token.expose_secret()));
        }
        if let Some((user, password)) = basic(text) {
            let pair = format!("{user}:{}", password.expose_secret());
            let again = basic(&format!("Basic {}", general_purpose::STANDARD.encode(pair)));
            let again = again.map(|(user, password)| (user, password.expose_secret().to_owned()));
            assert_eq!(again, Some((user, password.expose_secret().to_owned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_header_panics(s in ".{0,60}") {
            let _ = (parse(&s), parse(&format!("Bearer {s}")), parse(&format!("Basic {s}")));
        }
    }

    #[test]
    fn every_form_is_read() {
        for (header, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc", Some("abc")),
            ("Basic dTphYmM=", Some("abc")),
            ("Basic dTphYmM", Some("abc")),
            ("Basic u:abc", Some("abc")),
            ("Basic :a:b", Some("a:b")),
            ("Basic dTo=", None),
            ("Basic dWFiYw==", None),
            ("Basic ###", None),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearer a b", None),
            ("Digest abc", None),
            ("abc", None),
        ] {
            assert_eq!(parse(header).as_deref(), token, "{header}");
        }
    }
}
