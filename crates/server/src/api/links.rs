//! Links and `Location` begin with the address that clients reach the API at, where a reverse proxy is in between. Without
//! one they are paths, as handlers make them.

use crate::{
    error::ApiError,
    external::{FORWARDED, LinkBase},
    serve::ClientAddress,
    state::AppState,
};
use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, VARY},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::Value;

/// Bytes of an answer with links: a page of the most resources has a few megabytes.
const LARGEST: usize = 64 << 20;
/// The property as JSON writes it. A text cannot contain it, since its quotes are escaped.
const LINKS: &[u8] = b"\"_links\"";

/// Of an answer whose URLs begin with the address already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Absolute;

/// Wraps every request.
pub(super) async fn absolute(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let client = request.extensions().get::<ClientAddress>().map(|client| client.0.ip());
    let base = state.external.base(client, request.headers());
    if let Some(base) = base.clone() {
        request.extensions_mut().insert(base);
    }
    let mut response = next.run(request).await;
    if state.external.reads_headers() {
        not_for_others(&mut response);
    }
    match base {
        Some(base) => prefixed(response, &base).await,
        None => response,
    }
}

/// Links depend on headers that any client can send to a cache which does not know them, or to a proxy that passes them on.
fn not_for_others(response: &mut Response) {
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static(FORWARDED));
    if let Some(value) = headers.get_mut(CACHE_CONTROL)
        && value.as_bytes().starts_with(b"public")
    {
        *value = HeaderValue::from_static("private, no-cache");
    }
}

async fn prefixed(mut response: Response, base: &LinkBase) -> Response {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.filter(|path| path.starts_with('/')).map(|path| format!("{}{path}", base.0));
    if let Some(location) = location.and_then(|location| HeaderValue::try_from(location).ok()) {
        response.headers_mut().insert(LOCATION, location);
    }
    let is_json = |kind: &HeaderValue| kind == "application/json" || kind == "application/hal+json";
    let has_links = response.headers().get(CONTENT_TYPE).is_some_and(is_json);
    if !has_links || response.extensions().get::<Absolute>().is_some() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = match to_bytes(body, LARGEST).await {
        Ok(bytes) => bytes,
        Err(_) => return ApiError::unavailable("The answer is too large").into_response(),
    };
    // Most answers in plain JSON have no links.
    let read = |bytes| serde_json::from_slice::<Value>(bytes).ok();
    let value = if bytes.windows(LINKS.len()).any(|part| part == LINKS) { read(&bytes) } else { None };
    let body = match value {
        Some(mut value) => {
            prefix_links(&mut value, &base.0);
            parts.headers.remove(CONTENT_LENGTH);
            Body::from(value.to_string())
        }
        None => Body::from(bytes),
    };
    Response::from_parts(parts, body)
}

/// Prefixes the links of the resource and of those in it.
fn prefix_links(value: &mut Value, base: &str) {
    match value {
        Value::Object(object) => {
            for (name, part) in object {
                match part {
                    Value::Object(links) if name == "_links" => {
                        for link in links.values_mut() {
                            if let Some(Value::String(href)) = link.get_mut("href") {
                                href.insert_str(0, base);
                            }
                        }
                    }
                    part => prefix_links(part, base),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prefix_links(item, base)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
