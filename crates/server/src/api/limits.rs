//! Counts requests against the [rate limits](crate::rate_limits): by their principal once it has authenticated, and by their
//! source if there is none.
//!
//! Invariant: each request is counted once, before it is carried out.

use super::request_context::RequestContext;
use crate::{
    auth::Principal, error::ApiError, rate_limits::RateLimits, serve::places::Connection, state::AppState,
    turns::Turn,
};
use axum::{
    extract::{Request, State},
    http::{Extensions, Method, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};
use tracing::Instrument as _;
use wicketgate_store::RequestTime;

/// What monitors ask.
pub(super) const PROBES: [&str; 2] = ["/livez", "/readyz"];

/// For a turn. As long as a query may take.
const LIST_WITHIN: Duration = Duration::from_secs(4);

/// A caller whose lists take turns with those of its customer, so that costly queries do not take all connections to the database.
#[derive(Debug, Clone)]
pub(super) struct ListReader {
    actor: String,
    tenant: String,
}

/// The turn of a list, until it is answered.
#[derive(Debug)]
pub(super) struct ListTurn {
    reader: ListReader,
    limits: Arc<RateLimits>,
    _turns: (Turn, Turn),
}

impl ListReader {
    /// `None`: the operator, who has no limit, as in `rate_limits`.
    pub(super) fn of(principal: &Principal) -> Option<Self> {
        principal.tenant().map(|tenant| Self { actor: principal.actor.clone(), tenant })
    }

    /// The turn of a request that reads, if its reader needs one: first among those of its account, so that no account takes all
    /// turns of its customer.
    pub(super) async fn turn(state: &AppState, parts: &Parts) -> Result<Option<ListTurn>, ApiError> {
        // Another request may have its body yet to come.
        let is_read = matches!(parts.method, Method::GET | Method::HEAD);
        let Some(reader) = parts.extensions.get::<Self>().filter(|_| is_read).cloned() else {
            return Ok(None);
        };
        let turns = async {
            let own = state.lists.take(&reader.actor, LIST_WITHIN).await?;
            Some((own, state.lists.take(&reader.tenant, LIST_WITHIN).await?))
        };
        let turn = timeout(LIST_WITHIN, turns).await.ok().flatten();
        let refused = "Other lists of this customer's accounts are being read: wait for their answers, and request fewer at a time";
        let turn = turn.ok_or_else(|| ApiError::too_many_requests(refused))?;
        Ok(Some(ListTurn { reader, limits: Arc::clone(&state.rate_limits), _turns: turn }))
    }
}

impl ListTurn {
    /// Counts the rows of the answer.
    pub(super) fn read(&self, rows: usize) {
        self.limits.read((&self.reader.actor, &self.reader.tenant), rows);
    }
}

/// The caller that has authenticated, or the refusal, as far as the limits admit it. A connection keeps its place for a caller.
pub(super) async fn admitted(
    state: &AppState,
    (method, extensions): (&Method, &Extensions),
    authenticated: Result<Principal, ApiError>,
) -> Result<Principal, ApiError> {
    match &authenticated {
        Ok(principal) => {
            RequestContext::of(extensions).is_of(&principal.actor);
            let turn = match state.rate_limits.admit(principal, method) {
                Ok(turn) => turn,
                // Its connection may be closed for another one meanwhile.
                Err(refused) => return Err(refused.answer().await),
            };
            if let Some(connection) = extensions.get::<Connection>() {
                connection.is_known();
            }
            if !turn.is_zero() {
                sleep(turn).await;
            }
        }
        // A database that does not answer is no fault of the caller.
        Err(error) if error.is_of_caller() => {
            if let Err(refused) = state.rate_limits.admit_stranger(RequestContext::of(extensions).address()) {
                return Err(refused.answer().await);
            }
        }
        Err(_) => {}
    }
    authenticated
}

/// Counts the session that a caller begins as a write of it.
pub(super) async fn admitted_to_sign_in(state: &AppState, principal: &Principal) -> Result<(), ApiError> {
    match state.rate_limits.admit(principal, &Method::POST) {
        Ok(turn) => {
            sleep(turn).await;
            Ok(())
        }
        Err(refused) => Err(refused.answer().await),
    }
}

/// Wraps every request. One that reads goes on when its client has hung up: its query does, too, and its turn lasts as long. Those of
/// monitors have no turn, and end with their client: any number may be begun.
pub(super) async fn to_the_end(request: Request, next: Next) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) || PROBES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let read = tokio::spawn(RequestTime::of_task().bound(next.run(request)).in_current_span()).await;
    read.unwrap_or_else(|_| ApiError::unavailable("The request could not be carried out").into_response())
}

/// Wraps what needs no principal.
pub(super) async fn strangers(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let source = RequestContext::of(request.extensions()).address();
    match state.rate_limits.admit_stranger(source) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.answer().await.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, body::Body, middleware::from_fn, routing::get};
    use tokio::sync::Notify;
    use tower::ServiceExt as _;

    #[tokio::test(start_paused = true)]
    async fn a_read_goes_on_when_its_client_has_hung_up() {
        let second = Duration::from_secs(1);
        let ended = Arc::new(Notify::new());
        let end = Arc::clone(&ended);
        let reads = async move || {
            sleep(10 * second).await;
            end.notify_one();
        };
        let router: Router = Router::new().route("/", get(reads)).layer(from_fn(to_the_end));
        let request = router.oneshot(Request::get("/").body(Body::empty()).unwrap());
        assert!(timeout(second, request).await.is_err());
        assert!(timeout(20 * second, ended.notified()).await.is_ok());
    }
}
