//! Sessions of the web console. The browser has a cookie that scripts cannot read, and the server a row for the cookie's hash.
//!
//! Invariants: a session permits no more than what it was begun with permits now: each use looks that up. A request whose
//! cookie authenticates it comes from a page of this origin, and one that changes something also has the session's CSRF
//! token, which only such a page can read.

use super::{
    account,
    principal::{Principal, Refused},
    scope::Scope,
    trusted::Auth,
};
use crate::error::ApiError;
use aws_lc_rs::hmac;
use axum::http::{
    HeaderMap, HeaderName, Method,
    header::{ACCEPT, COOKIE},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tracing::warn;
use wicketgate_model::ApiAccountId;
use wicketgate_store::{ConsoleSession, NewSession, Reach, SessionKind, Store};

/// The cookie's name. Not `__Host-…`: this prefix excludes plain HTTP on loopback, and paths.
pub(crate) const COOKIE_NAME: &str = "wicketgate-session";
pub(crate) const CSRF_HEADER: HeaderName = HeaderName::from_static("x-csrf-token");
/// Of requests that the console makes without a person's doing: it asks again for what it shows.
const BACKGROUND: HeaderName = HeaderName::from_static("x-background");
/// Browsers say where a request comes from (Fetch Metadata); scripts cannot set it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// A working day. Then the person signs in again.
const LONGEST: SignedDuration = SignedDuration::from_hours(12);
/// A browser that was left alone.
pub(crate) const IDLE: SignedDuration = SignedDuration::from_hours(1);
/// How exactly the last use is recorded: a write for each request would cost more than the request.
const USE_RECORDED: SignedDuration = SignedDuration::from_mins(1);

/// A session's token, as the cookie holds it: 256 random bits.
#[derive(Debug)]
pub(crate) struct SessionToken(SecretString);

/// A session that has just authenticated a request.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) token: SessionToken,
    pub(crate) session: ConsoleSession,
    pub(crate) principal: Principal,
}

impl SessionToken {
    pub(crate) fn generate() -> Result<Self, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        Ok(Self(URL_SAFE_NO_PAD.encode(random).into()))
    }

    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    pub(crate) fn sha256(&self) -> [u8; 32] {
        Sha256::digest(self.expose()).into()
    }

    /// For requests that change something. It is made of the token, which it does not reveal, so that nothing else is stored.
    pub(crate) fn csrf_token(&self) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.expose().as_bytes());
        URL_SAFE_NO_PAD.encode(hmac::sign(&key, b"csrf"))
    }

    /// Of the request's cookie. Browsers send one of a name and path; of several, the most specific is first (RFC 6265 §5.4).
    fn of(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == COOKIE_NAME).map(|(_, token)| Self(token.to_owned().into()))
    }
}

/// What a caller that has just proven itself begins.
pub(crate) fn begun_by(
    principal: &Principal,
    auth: &Auth,
    token: &SessionToken,
    now: Timestamp,
    ends: Option<Timestamp>,
) -> Result<NewSession, ApiError> {
    let account: Option<ApiAccountId> = principal.actor.parse().ok();
    let (kind, credential) = match (account, &principal.reach) {
        (Some(id), _) => (SessionKind::Account, id.to_string()),
        (None, Reach::All) => (SessionKind::Admin, auth.admin.get().fingerprint()),
        (None, Reach::Organization(own)) => {
            let issuer = auth.provider.as_ref().ok_or_else(ApiError::token_invalid)?.issuer();
            (SessionKind::IdentityProvider, format!("{issuer} {own}"))
        }
        (None, Reach::Named(_)) => return Err(ApiError::token_invalid()),
    };
    let longest = now.saturating_add(LONGEST).unwrap_or(now);
    Ok(NewSession {
        token_sha256: token.sha256(),
        kind,
        actor: principal.actor.clone(),
        credential,
        scopes: principal.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        created_at: now,
        expires_at: ends.map_or(longest, |ends| ends.min(longest)),
    })
}

/// The session of the request's cookie; `None` without a cookie.
pub(crate) async fn active(
    method: &Method,
    headers: &HeaderMap,
    auth: &Auth,
    store: &Store,
) -> Result<Option<Active>, ApiError> {
    let Some(token) = SessionToken::of(headers) else { return Ok(None) };
    let site = headers.get(&FETCH_SITE).map(|value| value.as_bytes());
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return Err(ApiError::csrf("The session's cookie is accepted only from pages of this server"));
    }
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    if !is_read && !has_csrf_token(headers, &token) {
        return Err(ApiError::csrf("X-CSRF-Token must be the csrfToken of the session"));
    }
    let now = Timestamp::now();
    let sha256 = token.sha256();
    let session = store.session(&sha256).await?.ok_or_else(ApiError::session_expired)?;
    let idle_end = session.used_at.saturating_add(IDLE).unwrap_or(now);
    if session.spec.expires_at <= now || idle_end <= now {
        return Err(ApiError::session_expired());
    }
    let principal = present(&session.spec, auth, store).await?;
    Ok(Some(Active { token, session, principal }))
}

/// Records that a person uses the session, so that it does not end as an idle one. What a page requests by itself is no use.
pub(crate) async fn used(active: &Active, headers: &HeaderMap, store: &Store) {
    let now = Timestamp::now();
    let is_stream = headers.get(ACCEPT).is_some_and(|accept| accept == "text/event-stream");
    if is_stream || headers.contains_key(&BACKGROUND) {
        return;
    }
    if active.session.used_at.saturating_add(USE_RECORDED).is_ok_and(|next| next <= now)
        && let Err(error) = store.session_used(&active.session.spec.token_sha256, now).await
    {
        warn!(%error, "the use of a session could not be recorded: it may end early");
    }
}

fn has_csrf_token(headers: &HeaderMap, token: &SessionToken) -> bool {
    let shown = headers.get(&CSRF_HEADER).map(|value| value.as_bytes());
    shown.is_some_and(|shown| shown.ct_eq(token.csrf_token().as_bytes()).into())
}

/// What the session permits now: what it was begun with may have been revoked or reduced since.
async fn present(spec: &NewSession, auth: &Auth, store: &Store) -> Result<Principal, ApiError> {
    let scopes = Scope::among(spec.scopes.iter().map(String::as_str));
    let (reach, organization) = match spec.kind {
        SessionKind::Account => {
            let id = spec.credential.parse().map_err(|_| Refused::Invalid)?;
            let account = store.api_account(id).await?.ok_or_else(ApiError::session_expired)?;
            return account::principal(&account, Some(&scopes)).map_err(|_| ApiError::session_expired());
        }
        SessionKind::Admin if spec.credential == auth.admin.get().fingerprint() => (Reach::All, None),
        // The admin token was replaced.
        SessionKind::Admin => return Err(ApiError::session_expired()),
        SessionKind::IdentityProvider => {
            // A URL has no space.
            let (issuer, organization) =
                spec.credential.split_once(' ').ok_or_else(ApiError::session_expired)?;
            if auth.provider.as_ref().is_none_or(|provider| provider.issuer() != issuer) {
                return Err(ApiError::session_expired());
            }
            (Reach::Organization(organization.to_owned()), Some(organization.to_owned()))
        }
    };
    Ok(Principal { actor: spec.actor.clone(), reach, organization, scopes, claim: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn the_cookie_is_found_among_others() {
        for (line, token) in [
            ("wicketgate-session=abc", Some("abc")),
            ("a=b; wicketgate-session=abc; c=d", Some("abc")),
            ("a=b;wicketgate-session=abc", Some("abc")),
            ("wicketgate-session=first; wicketgate-session=second", Some("first")),
            ("xwicketgate-session=abc", None),
            ("wicketgate-session", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, HeaderValue::from_str(line).unwrap());
            assert_eq!(SessionToken::of(&headers).as_ref().map(SessionToken::expose), token, "{line}");
        }
    }

    #[test]
    fn the_csrf_token_belongs_to_one_session_and_does_not_reveal_it() {
        let (a, b) = (SessionToken::generate().unwrap(), SessionToken::generate().unwrap());
        assert_ne!(a.csrf_token(), b.csrf_token());
        assert_eq!(a.csrf_token(), SessionToken(a.expose().to_owned().into()).csrf_token());
        assert!(!format!("{a:?}{}", a.csrf_token()).contains(a.expose()));
    }
}
