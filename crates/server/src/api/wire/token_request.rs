//! The request to the token endpoint (RFC 6749 §4.4.2): a form, or the same in JSON.

use super::body::Body;
use axum::http::{HeaderMap, header::CONTENT_TYPE};
use secrecy::SecretString;
use serde_json::Value;

#[derive(Debug, Default)]
pub(in crate::api) struct TokenRequest {
    pub(in crate::api) grant_type: Option<String>,
    pub(in crate::api) scope: Option<String>,
    pub(in crate::api) client_id: Option<String>,
    pub(in crate::api) client_secret: Option<SecretString>,
}

/// Why a request is malformed.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::api) struct Unreadable(pub(in crate::api) &'static str);

impl TokenRequest {
    /// Unknown parameters are ignored, and empty ones count as absent (§3.2).
    pub(in crate::api) fn read(headers: &HeaderMap, body: Body) -> Result<Self, Unreadable> {
        let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let media_type = value.split(';').next().unwrap_or_default().trim();
        if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            let bytes = body.bytes();
            return Self::of(
                form_urlencoded::parse(&bytes).map(|(name, value)| (name.into_owned(), value.into_owned())),
            );
        }
        let object = body.object().map_err(|_| {
            Unreadable("The body must be application/x-www-form-urlencoded, or a JSON object")
        })?;
        let texts: Option<Vec<_>> = object
            .into_iter()
            .filter(|(name, _)| NAMES.contains(&name.as_str()))
            .map(|(name, value)| match value {
                Value::String(text) => Some((name, text)),
                Value::Null => Some((name, String::new())),
                _ => None,
            })
            .collect();
        Self::of(texts.ok_or(Unreadable("Every parameter must be a string"))?.into_iter())
    }

    fn of(pairs: impl Iterator<Item = (String, String)>) -> Result<Self, Unreadable> {
        let mut found: [Option<String>; 4] = [const { None }; 4];
        for (name, value) in pairs.filter(|(_, value)| !value.is_empty()) {
            let place = NAMES.iter().position(|known| *known == name);
            let Some(slot) = place.and_then(|i| found.get_mut(i)) else { continue };
            if slot.replace(value).is_some() {
                return Err(Unreadable("Every parameter must be given once"));
            }
        }
        let [grant_type, scope, client_id, client_secret] = found;
        Ok(Self { grant_type, scope, client_id, client_secret: client_secret.map(SecretString::from) })
    }
}

const NAMES: [&str; 4] = ["grant_type", "scope", "client_id", "client_secret"];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(text: &str) -> Result<TokenRequest, Unreadable> {
        TokenRequest::of(
            form_urlencoded::parse(text.as_bytes()).map(|(n, v)| (n.into_owned(), v.into_owned())),
        )
    }

    proptest! {
        #[test]
        fn no_form_panics(text in "\\PC{0,80}|([a-z_]{0,8}=?%?[0-9a-f+&]{0,4}){0,6}") {
            let _ = form(&text);
        }
    }

    #[test]
    fn a_form_is_read() {
        let read = form("grant_type=client_credentials&scope=a+b&resource=x&resource=y&client_id=").unwrap();
        assert_eq!(read.grant_type.as_deref(), Some("client_credentials"));
        assert_eq!((read.scope.as_deref(), read.client_id), (Some("a b"), None));
        assert!(form("scope=a&scope=b").is_err());
    }
}
