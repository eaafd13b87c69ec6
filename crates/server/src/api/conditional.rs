//! Conditional requests (RFC 9110 §13): `If-Match` on writes, `If-None-Match` on reads.

use super::wire::etag::{ETag, Tags};
use crate::{error::ApiError, state::AppState};
use axum::{
    extract::{FromRequestParts, Request},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH, VARY},
        request::Parts,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// Only the client may keep an answer, and must revalidate it before each use.
const REVALIDATED: HeaderValue = HeaderValue::from_static("private, no-cache");
const BY_FORMAT: HeaderValue = HeaderValue::from_static("Accept, Authorization");

/// The condition of a write on the resource's current state.
#[derive(Debug)]
pub(super) struct Preconditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

impl FromRequestParts<AppState> for Preconditions {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        Ok(Self {
            if_match: tags(&parts.headers, &IF_MATCH)?,
            if_none_match: tags(&parts.headers, &IF_NONE_MATCH)?,
        })
    }
}

impl Preconditions {
    pub(super) fn are_given(&self) -> bool {
        self.if_match.is_some() || self.if_none_match.is_some()
    }

    /// 412, unless the resource is in a state that the condition names. It is checked last, when nothing else prevents
    /// the write.
    pub(super) fn hold_for(&self, it: &impl Serialize) -> Result<(), ApiError> {
        if !self.are_given() {
            return Ok(());
        }
        let current = ETag::of(it);
        if self.if_match.as_ref().is_some_and(|tags| !tags.match_state(&current)) {
            return Err(ApiError::precondition_failed(
                "The resource has changed: its ETag no longer matches If-Match",
            ));
        }
        if self.if_none_match.as_ref().is_some_and(|tags| tags.match_state(&current)) {
            return Err(ApiError::precondition_failed(
                "The resource is unchanged: its ETag matches If-None-Match",
            ));
        }
        Ok(())
    }
}

/// Wraps every request: a GET whose ETag the client already has is a 304, and `Cache-Control` says what caches may keep.
/// What must not be stored has no tag.
pub(super) async fn reads(request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let known = match tags(request.headers(), &IF_NONE_MATCH) {
        Ok(known) => known,
        Err(_) if !is_read => None,
        Err(error) => return error.into_response(),
    };
    let mut response = next.run(request).await;
    let secret = response.headers().get(CACHE_CONTROL).is_some_and(|v| v == "no-store");
    if secret {
        response.headers_mut().remove(ETAG);
        return response;
    }
    // A caller with a cookie sends no Authorization, by which a shared cache would know that the answer is not for others.
    response.headers_mut().entry(CACHE_CONTROL).or_insert(REVALIDATED);
    let Some(tag) = response.headers().get(ETAG).cloned() else { return response };
    response.headers_mut().insert(VARY, BY_FORMAT);
    let same = known.is_some_and(|known| known.match_exactly(tag.to_str().unwrap_or_default()));
    if is_read && same && response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = axum::body::Body::empty();
        response.headers_mut().remove(CONTENT_TYPE);
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}

/// Several lines of a header form one list.
fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, ApiError> {
    let lines: Vec<_> = headers.get_all(name).iter().map(|v| v.to_str().unwrap_or("?")).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    Tags::parse(&lines.join(",")).map(Some).ok_or_else(|| {
        let shown = if *name == IF_MATCH { "If-Match" } else { "If-None-Match" };
        ApiError::bad_request(format!("{shown} must be * or entity tags in double quotes"))
    })
}
