//! `Idempotency-Key` on a POST: a request that is sent repeatedly is executed once, and gets the same answer each time.
//!
//! A key belongs to its caller and the caller's scopes, and is valid for a day. A request that was refused has changed
//! nothing, and its key is free again. An answer that contains a secret (an enrolment code, a client secret) says
//! `no-store` and is not stored: the repeated request is refused with a 409, since a secret is returned only once. A
//! request is completed even if its client disconnects, so that there is an answer to store.

use super::{
    limits::admitted,
    wire::body::{LARGEST, read},
};
use crate::{
    auth::{Principal, Scope, authenticate},
    error::ApiError,
    state::{AppState, now},
};
use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LOCATION, RETRY_AFTER},
        request::Parts,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use tracing::warn;
use uuid::Uuid;
use wicketgate_store::{Claim, Claimed, KeptAnswer, Reach, RequestTime, RunningClaim};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Set on an answer that was stored.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// How long an answer may wait until it is kept.
const KEEP_WITHIN: Duration = Duration::from_millis(300);
/// The limit of an execution, whether or not its client waits.
const LONGEST: Duration = Duration::from_secs(50);
/// Keys are UUIDs or like them.
const LONGEST_KEY: usize = 255;
/// The headers that are stored with an answer.
const KEPT: [HeaderName; 3] = [CONTENT_TYPE, LOCATION, ETAG];
/// Seconds after which a client repeats a request whose first copy is still being executed.
const AGAIN: HeaderValue = HeaderValue::from_static("1");

/// Wraps every request.
pub(super) async fn once(State(state): State<AppState>, request: Request, next: Next) -> Response {
    // `/oauth/token` does not take keys: a repeated request gets a new token.
    let is_post = request.method() == Method::POST && request.uri().path().starts_with("/frontdoor/");
    if !is_post || !request.headers().contains_key(&KEY) {
        return next.run(request).await;
    }
    carry_out(state, request, next).await.unwrap_or_else(IntoResponse::into_response)
}

async fn carry_out(state: AppState, request: Request, next: Next) -> Result<Response, ApiError> {
    let authenticated = authenticate(request.method(), request.headers(), &state.auth, &state.store).await;
    // One that failed is counted where it fails again.
    let Ok(principal) = authenticated else { return Ok(next.run(request).await) };
    let asked = (request.method(), request.extensions());
    let principal = admitted(&state, asked, Ok(principal)).await?;
    let (mut parts, body) = request.into_parts();
    let bytes = read(body).await?;
    let claim = Arc::new(Claim {
        key: key(&parts.headers)?,
        fingerprint: fingerprint(&principal, &parts, &bytes),
        principal: principal.actor.clone(),
        token: Uuid::now_v7(),
    });
    // The handler's extractor takes both from the request, and passes the claim to the store with its write.
    parts.extensions.insert(Principal { claim: Some(Arc::clone(&claim)), ..principal });
    // A separate task: once the key is claimed, the request is executed whether or not its client waits.
    let work = claimed(state, claim, Request::from_parts(parts, Body::from(bytes)), next);
    let task = tokio::spawn(RequestTime::of_task().bound(work));
    task.await.map_err(|_| ApiError::unavailable("The request could not be carried out"))?
}

async fn claimed(
    state: AppState,
    claim: Arc<Claim>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    // The key of a request that runs no more is free, unless its write was committed.
    let running = state.store.running(&claim);
    let state_of_key = match &running {
        Ok(_) => state.store.claim(&claim, now()).await?,
        Err(taken) => taken.clone(),
    };
    match state_of_key {
        Claimed::Fresh => {}
        Claimed::Running => {
            let error =
                ApiError::conflict("The request with this Idempotency-Key is being carried out: ask again");
            return Ok(([(RETRY_AFTER, AGAIN)], error).into_response());
        }
        Claimed::Other => {
            return Err(ApiError::conflict(
                "Idempotency-Key was used for another request, or with other scopes, within the last day",
            ));
        }
        Claimed::Answered(answer) => return replay(answer),
        Claimed::Lost(process) => {
            return Err(ApiError::conflict(format!(
                "The request with this Idempotency-Key was carried out and its answer lost: see executions?processId={process}"
            )));
        }
    }
    let work = timeout(LONGEST, next.run(request)).await;
    let response =
        work.unwrap_or_else(|_| ApiError::unavailable("The request took too long").into_response());
    Ok(keep(state, claim, running.ok(), response).await)
}

fn key(headers: &HeaderMap) -> Result<String, ApiError> {
    let mut keys = headers.get_all(&KEY).iter();
    let key = keys.next().filter(|_| keys.next().is_none()).and_then(|key| key.to_str().ok());
    let key = key.filter(|k| (1..=LONGEST_KEY).contains(&k.len()) && k.bytes().all(|b| b.is_ascii_graphic()));
    key.map(str::to_owned).ok_or_else(|| {
        ApiError::bad_request(format!(
            "Idempotency-Key must be given once, as 1 to {LONGEST_KEY} printable ASCII characters without spaces"
        ))
    })
}

/// The hash of path, query, body and scopes; a JSON body counts by its value. A token of the same account with narrower
/// scopes must not get an answer that was made for wider ones.
fn fingerprint(principal: &Principal, parts: &Parts, body: &Bytes) -> String {
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let mut digest = Sha256::new();
    for scope in Scope::ALL.into_iter().filter(|s| principal.scopes.contains(s)) {
        digest.update(scope.as_str());
        digest.update(" ");
    }
    match &principal.reach {
        Reach::All => digest.update("all"),
        Reach::Organization(own) => digest.update(format!("organization {own:?}")),
        Reach::Named(named) => digest.update(format!("named {named:?}")),
    }
    digest.update("\n");
    digest.update(path);
    digest.update("\n");
    match serde_json::from_slice::<Value>(body) {
        Ok(value) => digest.update(value.to_string()),
        Err(_) => digest.update(body),
    }
    digest.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Stores the answer of an executed request. The key of one that has changed nothing is free as it is. A database that was slow to
/// write gets time of its own to keep the answer, for which the client does not wait longer than [`KEEP_WITHIN`].
async fn keep(
    state: AppState,
    claim: Arc<Claim>,
    running: Option<RunningClaim>,
    response: Response,
) -> Response {
    if !response.status().is_success() {
        return response;
    }
    let (parts, body) = response.into_parts();
    // The server's own answers are smaller than this limit.
    let body = to_bytes(body, LARGEST).await.unwrap_or_default();
    let is_secret = parts.headers.get(CACHE_CONTROL).is_some_and(|v| v == "no-store");
    let headers = KEPT.iter().filter_map(|name| {
        let value = parts.headers.get(name)?.to_str().ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    });
    let answer = KeptAnswer {
        status: parts.status.as_u16(),
        headers: headers.collect(),
        body: (!is_secret).then(|| String::from_utf8_lossy(&body).into_owned()),
    };
    let kept = tokio::spawn(RequestTime::default().bound(async move {
        if let Err(error) = state.store.keep_answer(&claim, &answer).await {
            warn!(%error, "could not keep the answer of a request with an idempotency key");
        }
        // Until then, the request counts as being carried out.
        drop(running);
    }));
    let _ = timeout(KEEP_WITHIN, kept).await;
    Response::from_parts(parts, Body::from(body))
}

fn replay(answer: KeptAnswer) -> Result<Response, ApiError> {
    let Some(body) = answer.body else {
        return Err(ApiError::conflict(
            "The request with this Idempotency-Key was carried out; its answer held a secret, which is shown once",
        ));
    };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, body).into_response();
    response.headers_mut().remove(CONTENT_TYPE);
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}
