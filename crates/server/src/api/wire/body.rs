//! A request's body: a JSON object of bounded size, that arrived in a bounded time.

use crate::error::ApiError;
use axum::{
    body::{Body as HttpBody, Bytes, to_bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, header::CONTENT_TYPE},
};
use serde_json::{Map, Value};
use std::time::Duration;

/// Far more than any resource takes.
const LARGEST: usize = 1 << 20;
/// For a megabyte over a bad line.
const ARRIVAL: Duration = Duration::from_secs(20);

/// A body that was read, and not yet looked at: first comes whether the caller may write at all.
#[derive(Debug)]
pub(in crate::api) struct Body {
    is_json: bool,
    bytes: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let is_json = is_json(request.headers());
        let bytes = read(request.into_body()).await?;
        Ok(Self { is_json, bytes })
    }
}

async fn read(body: HttpBody) -> Result<Bytes, ApiError> {
    let read = tokio::time::timeout(ARRIVAL, to_bytes(body, LARGEST)).await;
    read.map_err(|_| ApiError::too_slow())?.map_err(|e| {
        let is_limit = std::iter::successors(Some(&e as &dyn std::error::Error), |e| e.source())
            .any(|e| e.to_string() == "length limit exceeded");
        if is_limit { ApiError::too_large(LARGEST) } else { ApiError::bad_request("The body was cut short") }
    })
}

/// `application/json`, or a format that is JSON (RFC 6839 §3.1), like a merge patch.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

impl Body {
    pub(in crate::api) fn object(self) -> Result<Map<String, Value>, ApiError> {
        if !self.is_json {
            return Err(ApiError::not_json());
        }
        match serde_json::from_slice(&self.bytes) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(ApiError::bad_request("Value for the body must be of object")),
            Err(e) => Err(ApiError::bad_request(format!("The body is not JSON: {e}"))),
        }
    }

    /// For a request that says all in its path: no body is an empty object.
    pub(in crate::api) fn object_or_nothing(self) -> Result<Map<String, Value>, ApiError> {
        if self.bytes.is_empty() { Ok(Map::new()) } else { self.object() }
    }
}
