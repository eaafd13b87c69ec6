//! What is around every request: an id, a bound of time, a line in the access log and a count.
//!
//! Invariant: the log never has what a caller may keep secret: no header, no body and no query.

use crate::{error::ApiError, serve::ClientAddress, telemetry::Metrics};
use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use tracing::{debug, info};
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Ids of other systems are UUIDs or like them.
const LONGEST_ID: usize = 128;
/// Far longer than any request takes, a body over a bad line and a walk along a share's path included.
const LONGEST: Duration = Duration::from_secs(30);
/// Of a path that stands for nothing, in the log.
const SHOWN_PATH: usize = 200;
/// The route of what has none.
const NO_ROUTE: &str = "other";

pub(super) async fn observe(
    State(metrics): State<Arc<Metrics>>,
    matched: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let begin = Instant::now();
    let id = request_id(request.headers().get(&REQUEST_ID));
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let client = request.extensions().get::<ClientAddress>().copied();
    let (method, uri) = (method_name(request.method()), request.uri().clone());
    let mut response = match timeout(LONGEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::unavailable("The request took too long").into_response(),
    };
    let (took, status) = (begin.elapsed(), response.status().as_u16());
    let route = matched.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    metrics.answered(method, route, status, took);
    let shown = id.to_str().unwrap_or_default();
    let path = uri.path().get(..SHOWN_PATH).unwrap_or(uri.path());
    info!(target: "access", id = shown, method, route, path, status, ms = took.as_secs_f64() * 1e3, "answered");
    if let Some(ClientAddress(address)) = client {
        debug!(target: "access", id = shown, %address, "asked");
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The caller's, if it can stand in a log as it is, or a fresh one.
fn request_id(given: Option<&HeaderValue>) -> HeaderValue {
    let good = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        (1..=LONGEST_ID).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(b))
    };
    given.filter(good).cloned().unwrap_or_else(|| {
        let fresh = Uuid::now_v7().to_string();
        HeaderValue::try_from(fresh).unwrap_or(HeaderValue::from_static("unknown"))
    })
}

/// The methods that there are: a client may make up any number of others.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
