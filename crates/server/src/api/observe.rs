//! Wraps every request: gives it an id, bounds its time, writes a line to the access log and counts it, also as a failed
//! authentication. If a handler panics, the client gets an answer with the id under which the log has the cause. A 503 says when to
//! try again. No browser takes an answer for another type than it says.
//!
//! Invariant: the log contains no secret of a client: no header, no body and no query.

use super::request_context::RequestContext;
use crate::{
    auth::failure::AuthenticationFailure,
    authentication_failures::AuthenticationFailures,
    error::{ApiError, SOON},
    external::ExternalAddress,
    serve::ClientAddress,
    state::AppState,
    telemetry::ServerMetrics,
};
use axum::{
    extract::{MatchedPath, Request, State},
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{RETRY_AFTER, X_CONTENT_TYPE_OPTIONS},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use tracing::{error, info};
use uuid::Uuid;
use wicketgate_store::{RequestOrigin, RequestTime};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Ids of other systems are UUIDs or like them.
const LONGEST_ID: usize = 128;
/// Far longer than any request takes, a body over a bad line and a walk along a share's path included.
const LONGEST: Duration = Duration::from_secs(30);
/// Characters of a path in the log.
const SHOWN_PATH: usize = 200;
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
/// The route of a request that matches none.
const NO_ROUTE: &str = "other";

/// What it needs to know, and what counts.
#[derive(Debug, Clone)]
pub(super) struct Observer {
    external: Arc<ExternalAddress>,
    metrics: Arc<ServerMetrics>,
    failures: Arc<AuthenticationFailures>,
}

impl Observer {
    pub(super) fn of(state: &AppState) -> Self {
        let AppState { external, metrics, failures, .. } = state;
        Self { external: Arc::clone(external), metrics: Arc::clone(metrics), failures: Arc::clone(failures) }
    }

    fn context(&self, request: &Request, id: &HeaderValue) -> RequestContext {
        let peer = request.extensions().get::<ClientAddress>().map(|client| client.0.ip());
        let address = peer.and_then(|peer| self.external.client(peer, request.headers()));
        RequestContext::new(RequestOrigin {
            address: address.map(|address| address.to_canonical()),
            request_id: id.to_str().ok().map(str::to_owned),
        })
    }

    fn failed(&self, response: &Response, context: &RequestContext) {
        if let Some(failure) = response.extensions().get::<AuthenticationFailure>() {
            self.metrics.authentication_failed(failure.cause.as_str());
            if !failure.cause.is_everyday() {
                self.failures.add(*failure, &context.origin);
            }
        }
    }
}

pub(super) async fn observe(
    State(observer): State<Observer>,
    matched: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let begin = Instant::now();
    let id = request_id(request.headers().get(&REQUEST_ID));
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let context = observer.context(&request, &id);
    request.extensions_mut().insert(context.clone());
    let (method, uri) = (method_name(request.method()), request.uri().clone());
    let answer = AssertUnwindSafe(RequestTime::default().bound(next.run(request))).catch_unwind();
    let mut response = match timeout(LONGEST, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => {
            let id = id.to_str().unwrap_or_default();
            error!(id, panic = panic_message(&*panic), "a request handler panicked");
            ApiError::internal(format_args!("request {id}")).into_response()
        }
        Err(_) => ApiError::unavailable("The request took too long").into_response(),
    };
    let (took, status) = (begin.elapsed(), response.status().as_u16());
    let route = matched.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    observer.failed(&response, &context);
    observer.metrics.answered(method, route, status, took);
    let shown = id.to_str().unwrap_or_default();
    let path = uri.path().get(..SHOWN_PATH).unwrap_or(uri.path());
    let (actor, source) = (context.actor(), context.address().map(tracing::field::display));
    info!(target: "access", id = shown, actor, source, method, route, path, status, ms = %format_args!("{:.2}", took.as_secs_f64() * 1e3), "answered");
    response.headers_mut().insert(REQUEST_ID, id);
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().entry(RETRY_AFTER).or_insert(SOON);
    }
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or_default()
}

/// The client's, if it is safe to log, or a new one.
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

/// Its name in logs and metrics: a client may make up any number of methods.
fn method_name(method: &Method) -> &'static str {
    METHODS.into_iter().find(|name| method == name).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{
        Router,
        body::{Body, to_bytes},
        http::response::Parts,
        middleware::from_fn_with_state,
        routing::get,
    };
    use prometheus_client::registry::Registry;
    use serde_json::{Value, json};
    use tower::ServiceExt as _;

    async fn ask(path: &str) -> (StatusCode, String, Value) {
        let (parts, body) = asked(path).await;
        let id = parts.headers[REQUEST_ID].to_str().unwrap().to_owned();
        (parts.status, id, body)
    }

    async fn asked(path: &str) -> (Parts, Value) {
        let metrics = ServerMetrics::new(&mut Registry::default());
        let observer = Observer { external: Arc::default(), metrics, failures: Arc::default() };
        let router = Router::new()
            .route("/never", get(async || std::future::pending::<()>().await))
            .route(
                "/panic",
                get(async || {
                    if true {
                        panic!("the handler panics")
                    }
                }),
            )
            .route("/bare", get(async || StatusCode::SERVICE_UNAVAILABLE))
            .route("/later", get(async || (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "60")])))
            .layer(from_fn_with_state(observer, observe));
        let request = Request::get(path).header(REQUEST_ID, "the-id").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        (parts, serde_json::from_slice(&body).unwrap_or_default())
    }

    fn error(error: &str, message: &str) -> Value {
        let help = json!({"help": {"href": crate::reason_link::path(error)}});
        json!({"error": error, "message": message, "_links": help})
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_takes_too_long_gets_an_error() {
        let begin = Instant::now();
        let (status, id, body) = ask("/never").await;
        assert_eq!((status, id.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "the-id"));
        assert_eq!(body, error("unavailable", "The request took too long"));
        assert!((LONGEST..LONGEST * 2).contains(&begin.elapsed()));
    }

    #[tokio::test]
    async fn an_answer_that_the_server_cannot_serve_now_says_when_to_try_again() {
        for (path, seconds) in [("/bare", Some("5")), ("/later", Some("60")), ("/panic", None)] {
            let (parts, _) = asked(path).await;
            let after = parts.headers.get(RETRY_AFTER).map(|seconds| seconds.to_str().unwrap());
            assert_eq!(after, seconds, "{path}");
        }
    }

    #[tokio::test]
    async fn an_internal_error_is_answered_with_the_request_id_of_its_log_entry() {
        let (status, id, body) = ask("/panic").await;
        assert_eq!((status, id.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "the-id"));
        let message = "Internal error; see the server log for request the-id";
        assert_eq!(body, error("internal", message));
    }
}
