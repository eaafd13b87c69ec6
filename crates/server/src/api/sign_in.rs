//! `/console/sign-in` and `/console/callback`: a person signs in at the operator's identity provider. The browser itself
//! visits both, so that the console shows their errors: the address that the browser is sent to names the error.
//!
//! Invariant: what the browser carries from the one to the other is in a cookie that scripts cannot read. It names the
//! state that the provider has to return, so that a page of another origin cannot finish a sign-in that it began.

use super::{
    access::Answer,
    request_context::RequestContext,
    sessions::begun,
    wire::{query::Query, session::CookieScope},
};
use crate::{
    auth::{
        failure::{AuthenticationFailure, FailureCause},
        oidc::{
            Provider,
            code::{CodeFault, CodeRequest},
        },
    },
    error::ApiError,
    external::LinkBase,
    serve::Encrypted,
    state::AppState,
};
use axum::{
    extract::{FromRequestParts, State},
    http::{
        HeaderMap, StatusCode, Uri,
        header::{CACHE_CONTROL, COOKIE, HOST, LOCATION, SET_COOKIE},
        request::Parts,
        uri::Authority,
    },
    response::{IntoResponse, Response},
};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;
use subtle::ConstantTimeEq;

const COOKIE_NAME: &str = "wicketgate-sign-in";
/// Seconds for which a person may be at the provider.
const LONGEST: i64 = 600;
/// Bytes of the place in the console to return to.
const LONGEST_PLACE: usize = 1000;

/// The address of the console at this server, as the browser has it.
pub(super) struct Address(String);

/// The provider has a list of the addresses that it sends browsers to: a forged `Host` leads nowhere.
impl FromRequestParts<AppState> for Address {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let (origin, path) = parts.extensions.get().map_or(("", ""), LinkBase::origin_and_path);
        if !origin.is_empty() {
            return Ok(Self(format!("{origin}{path}")));
        }
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.and_then(|host| host.parse::<Authority>().ok());
        let host = host.ok_or_else(|| ApiError::bad_request("Host must name this server"))?;
        let is_encrypted = parts.extensions.get::<Encrypted>().is_some_and(|encrypted| encrypted.0);
        let scheme = if is_encrypted { "https" } else { "http" };
        Ok(Self(format!("{scheme}://{host}{path}")))
    }
}

impl Address {
    fn callback(&self) -> String {
        format!("{}/console/callback", self.0)
    }

    /// A place in the console: a fragment, which no server sees.
    fn place(&self, fragment: &str) -> String {
        format!("{}/#{fragment}", self.0)
    }
}

pub(super) async fn begin(
    State(state): State<AppState>,
    address: Address,
    scope: CookieScope,
    query: Query,
) -> Answer {
    let [place] = query.values(["return"])?;
    let begun = CodeRequest::generate()?;
    let url = match provider(&state)?.authorization_url(&begun, &address.callback()) {
        Ok(url) => url,
        Err(fault) => return Ok(see(&address.place(&failed(fault)), None)),
    };
    let place = place.filter(|place| is_place(place)).unwrap_or_default();
    let place: String = form_urlencoded::byte_serialize(place.as_bytes()).collect();
    let carried = format!("{}.{}.{place}", begun.state, begun.verifier.expose_secret());
    // Lax: the provider's site sends the browser back.
    Ok(see(&url, Some(scope.cookie(COOKIE_NAME, &carried, "Lax", LONGEST))))
}

pub(super) async fn finish(
    State(state): State<AppState>,
    address: Address,
    scope: CookieScope,
    (request, headers): (RequestContext, HeaderMap),
    uri: Uri,
) -> Answer {
    let forget = scope.cookie(COOKIE_NAME, "", "Lax", 0);
    let refused = |fault: &str| see(&address.place(&format!("/sign-in?error={fault}")), Some(forget.clone()));
    // Providers may add parameters of their own.
    let parameter = |name: &str| {
        let mut all = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        all.find_map(|(key, value)| (key == name).then(|| value.into_owned()))
    };
    let Some(carried) = Carried::of(&headers) else { return Ok(refused("sign_in_expired")) };
    let returned = parameter("state").unwrap_or_default();
    let is_same: bool = returned.as_bytes().ct_eq(carried.state.as_bytes()).into();
    if !is_same {
        return Ok(refused("sign_in_expired"));
    }
    let Some(code) = parameter("code") else { return Ok(refused("provider_refused")) };
    let redeemed = provider(&state)?.redeem(&code, &carried.verifier, &address.callback()).await;
    let (principal, ends) = match redeemed {
        Ok(redeemed) => redeemed,
        Err(fault) => {
            let mut answer = see(&address.place(&failed(fault)), Some(forget));
            if fault != CodeFault::ProviderDown {
                answer.extensions_mut().insert(AuthenticationFailure::from(FailureCause::SignInRefused));
            }
            return Ok(answer);
        }
    };
    request.is_of(&principal.actor);
    let (_, cookie) = begun(&state, principal, &scope, ends).await?;
    let mut answer = see(&address.place(&carried.place), Some(forget));
    if let Ok(cookie) = cookie.parse() {
        answer.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(answer)
}

/// What the cookie of a sign-in holds.
struct Carried {
    state: String,
    verifier: SecretString,
    place: String,
}

impl Carried {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let (_, value) = pairs.find(|(name, _)| *name == COOKIE_NAME)?;
        let mut parts = value.splitn(3, '.');
        let (state, verifier, place) = (parts.next()?, parts.next()?, parts.next()?);
        let place = form_urlencoded::parse(place.as_bytes()).next().map(|(place, _)| place.into_owned());
        Some(Self {
            state: state.to_owned(),
            verifier: verifier.to_owned().into(),
            place: place.filter(|place| is_place(place)).unwrap_or_default(),
        })
    }
}

/// Of the console's own, so that no link leads elsewhere by a sign-in.
fn is_place(place: &str) -> bool {
    place.len() <= LONGEST_PLACE && place.starts_with('/') && place.bytes().all(|b| b.is_ascii_graphic())
}

/// The place in the console that tells the fault.
fn failed(fault: CodeFault) -> String {
    let error = match fault {
        CodeFault::ProviderDown => "provider_unavailable",
        CodeFault::CodeRefused => "provider_refused",
        CodeFault::TokenRefused => "token_refused",
        CodeFault::NoOrganization => "no_organization",
    };
    format!("/sign-in?error={error}")
}

fn provider(state: &AppState) -> Result<&Arc<Provider>, ApiError> {
    let provider = state.auth.provider.as_ref().filter(|provider| provider.signs_in());
    provider.ok_or_else(|| {
        ApiError::conflict("No identity provider signs people in to this console: see --oidc-client-id")
    })
}

fn see(url: &str, cookie: Option<String>) -> Response {
    let mut answer = (StatusCode::SEE_OTHER, [(CACHE_CONTROL, "no-store")]).into_response();
    if let Ok(url) = url.parse() {
        answer.headers_mut().insert(LOCATION, url);
    }
    if let Some(cookie) = cookie.and_then(|cookie| cookie.parse().ok()) {
        answer.headers_mut().append(SET_COOKIE, cookie);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_returns_to_places_of_the_console_only() {
        for (place, is) in [
            ("/tunnels?status=ERROR", true),
            ("/", true),
            ("", false),
            ("//evil.example", true),
            ("https://evil.example", false),
            ("/a b", false),
            ("/a\r\nb", false),
        ] {
            assert_eq!(is_place(place), is, "{place}");
        }
        // Whatever the place, it is behind the `#`.
        assert_eq!(
            Address("https://a.example".to_owned()).place("//evil.example"),
            "https://a.example/#//evil.example"
        );
    }
}
