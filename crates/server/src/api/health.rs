//! `/livez`: the process is up. `/readyz`: what is written now is served soon. Neither needs a token, so neither
//! tells more than that.

use crate::state::{AppState, now};
use axum::{Json, extract::State, http::StatusCode};
use jiff::SignedDuration;
use serde::Serialize;
use wicketgate_model::EspMode;

/// The reconciler runs every second; a run over very many rows takes some.
const RUNS_WITHIN: SignedDuration = SignedDuration::from_secs(60);

pub(super) async fn livez() -> &'static str {
    "ok\n"
}

#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    ready: bool,
    /// Where ESP is done; left out until a gateway has said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    esp: Option<EspMode>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<&'static str>,
}

pub(super) async fn readyz(State(state): State<AppState>) -> (StatusCode, Json<Readiness>) {
    let gateway = state.gateway.borrow().clone();
    let mut reasons = Vec::new();
    if state.store.ping().await.is_err() {
        reasons.push("the database does not answer");
    }
    if !gateway.connected {
        reasons.push("no gateway is linked");
    }
    let last_run = state.last_run.borrow().clone();
    if last_run.error.is_some() {
        reasons.push("the reconciler's last run failed: see the log");
    }
    if last_run.at.is_some_and(|at| now().duration_since(at) > RUNS_WITHIN) {
        reasons.push("the reconciler does not get through a run: is the database stuck?");
    }
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, esp: gateway.esp, reasons }))
}
