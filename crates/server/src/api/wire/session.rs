//! Sessions of the web console in JSON and as a cookie.

use super::{
    fields::Fields,
    property::{Property, PropertyType::Text},
};
use crate::{
    auth::session::{Active, COOKIE_NAME, IDLE, SessionToken},
    error::ApiError,
    external::LinkBase,
};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Map, Value};
use wicketgate_model::{FrontdoorId, Invalid};
use wicketgate_store::Reach;

pub(in crate::api) static REQUEST_PROPERTIES: &[Property] =
    &[Property::new("token", Text).required().described_as("sessionToken")];

/// A session, as its browser sees it.
#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Session {
    actor: String,
    kind: &'static str,
    scopes: Vec<String>,
    organization_id: Option<String>,
    frontdoor_ids: Option<Vec<FrontdoorId>>,
    expires_at: Timestamp,
    /// Seconds without use after which it ends.
    idle_seconds: i64,
    csrf_token: String,
}

impl Session {
    pub(in crate::api) fn of(active: &Active) -> Self {
        let Active { token, session, principal } = active;
        let (organization_id, frontdoor_ids) = match principal.reach.clone() {
            Reach::All => (None, None),
            Reach::Organization(own) => (Some(own), None),
            Reach::Named(ids) => (None, Some(ids)),
        };
        Self {
            actor: principal.actor.clone(),
            kind: session.spec.kind.as_str(),
            scopes: principal.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
            organization_id,
            frontdoor_ids,
            expires_at: session.spec.expires_at,
            idle_seconds: IDLE.as_secs(),
            csrf_token: token.csrf_token(),
        }
    }
}

/// The token of the body.
pub(in crate::api) fn token(body: Map<String, Value>) -> Result<SecretString, ApiError> {
    let mut fields = Fields::new(body, REQUEST_PROPERTIES);
    let token = fields.parsed("token", |text| match text.trim() {
        "" => Err(Invalid("must not be empty".to_owned())),
        token if !token.bytes().all(|b| b.is_ascii_graphic()) => {
            Err(Invalid("must be printable ASCII without spaces".to_owned()))
        }
        token => Ok(SecretString::from(token.to_owned())),
    });
    fields.finish(|| token)
}

/// How the browser keeps a cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) struct CookieScope {
    /// Ends with a slash.
    path: String,
    is_secure: bool,
}

impl CookieScope {
    /// `base`: what the answer's links begin with. `is_encrypted`: this server itself speaks TLS.
    pub(in crate::api) fn new(base: Option<&LinkBase>, is_encrypted: bool) -> Self {
        let (origin, path) = base.map_or(("", ""), LinkBase::origin_and_path);
        let is_secure = if origin.is_empty() { is_encrypted } else { origin.starts_with("https:") };
        Self { path: format!("{path}/"), is_secure }
    }

    /// Of a session, until its end.
    pub(in crate::api) fn session(&self, token: &SessionToken, seconds: i64) -> String {
        self.cookie(COOKIE_NAME, token.expose(), "Strict", seconds)
    }

    /// Browsers delete a cookie of age 0.
    pub(in crate::api) fn no_session(&self) -> String {
        self.cookie(COOKIE_NAME, "", "Strict", 0)
    }

    /// RFC 6265 §4.1. The value has no character that needs quoting.
    pub(in crate::api) fn cookie(&self, name: &str, value: &str, same_site: &str, seconds: i64) -> String {
        let Self { path, is_secure } = self;
        let secure = if *is_secure { "; Secure" } else { "" };
        format!("{name}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite={same_site}{secure}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_limited_to_the_api_and_to_tls_where_there_is_any() {
        let base = |base: &str| LinkBase(base.to_owned());
        for (base, is_encrypted, shown) in [
            (None, false, "Path=/; Max-Age=1; HttpOnly; SameSite=Strict"),
            (None, true, "Path=/; Max-Age=1; HttpOnly; SameSite=Strict; Secure"),
            (
                Some(base("https://a.example:8443/wg")),
                false,
                "Path=/wg/; Max-Age=1; HttpOnly; SameSite=Strict; Secure",
            ),
            (Some(base("http://a.example")), true, "Path=/; Max-Age=1; HttpOnly; SameSite=Strict"),
            (Some(base("/wg")), true, "Path=/wg/; Max-Age=1; HttpOnly; SameSite=Strict; Secure"),
        ] {
            let scope = CookieScope::new(base.as_ref(), is_encrypted);
            let cookie = scope.session(&SessionToken::generate().unwrap(), 1);
            assert!(cookie.ends_with(shown), "{cookie}");
        }
    }
}
