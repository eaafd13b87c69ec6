//! `/livez`: the process is up. `/readyz`: writes take effect soon. Neither requires a token, so neither shows more
//! than that; causes of failures are in the log.

use crate::{
    background::LastRun,
    gateways::ReportKind,
    state::{AppState, now},
};
use axum::{
    Json,
    extract::{RawQuery, State},
    http::StatusCode,
};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use wicketgate_model::EspMode;

/// The reconciler runs every second; a run over very many rows takes several.
const RUNS_WITHIN: SignedDuration = SignedDuration::from_secs(60);

/// A beat is written every two seconds.
const BEATS_WITHIN: SignedDuration = SignedDuration::from_secs(15);

/// The oldest report of a gateway that is not recorded yet: usually it waits for milliseconds.
const RECORDED_WITHIN: SignedDuration = SignedDuration::from_secs(30);

pub(super) async fn livez() -> &'static str {
    "ok\n"
}

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    ready: bool,
    /// Where ESP is done; left out until a gateway has reported it.
    esp: Option<EspMode>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
    /// With `?verbose`: every background task that has run.
    tasks: Option<Vec<TaskRun>>,
}

/// The last run of a background task.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TaskRun {
    name: &'static str,
    last_run_at: Timestamp,
    duration_ms: f64,
    result: &'static str,
}

pub(super) const RESULTS: [&str; 2] = ["OK", "FAILED"];

fn reconciler_fault(last: Option<&LastRun>) -> Option<&'static str> {
    match last {
        // It has not read yet what is to be served.
        None => Some("the reconciler has not finished its first run"),
        Some(run) if run.error.is_some() => Some("the reconciler's last run failed: see the log"),
        Some(run) if now().duration_since(run.at) > RUNS_WITHIN => {
            Some("the reconciler does not finish a run: is the database stuck?")
        }
        Some(_) => None,
    }
}

/// Of a server beside others: whether it belongs to them.
fn heartbeat_fault(last: Option<&LastRun>) -> Option<&'static str> {
    match last {
        Some(run) if run.error.is_some() => Some("the other servers do not hear of this one: see the log"),
        Some(run) if now().duration_since(run.at) > BEATS_WITHIN => {
            Some("the other servers do not hear of this one: is the database stuck?")
        }
        Some(_) | None => None,
    }
}

pub(super) async fn readyz(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> (StatusCode, Json<Readiness>) {
    let (mut reasons, mut esp, mut is_linked) = (Vec::new(), None, false);
    for gateway in state.gateways.linked_now().values() {
        let view = gateway.view.lock();
        esp = esp.or(view.esp());
        is_linked |= view.is_connected;
        drop(view);
        let late = ReportKind::ALL.into_iter().filter(|kind| {
            let oldest = gateway.view.backlog.oldest(*kind);
            oldest.is_some_and(|since| now().duration_since(since) > RECORDED_WITHIN)
        });
        reasons.extend(late.map(|kind| {
            format!("reports of the gateway ({kind}) have waited to be recorded for more than {} s: is the database slow?", RECORDED_WITHIN.as_secs())
        }));
    }
    reasons.extend(state.database_check.fault(&state.store).await);
    let reconciler = || reconciler_fault(state.tasks.last_run("reconciler").as_ref());
    if state.store.has_others() {
        // Gateways may be linked to any of them, and what is written waits for those that are away.
        reasons.extend(heartbeat_fault(state.tasks.last_run("heartbeat").as_ref()).map(str::to_owned));
        reasons.extend(is_linked.then(reconciler).flatten().map(str::to_owned));
    } else {
        if !is_linked {
            reasons.push("no gateway is linked".to_owned());
        }
        reasons.extend(reconciler().map(str::to_owned));
    }
    let is_verbose =
        query.is_some_and(|q| q.split('&').any(|part| part.split('=').next() == Some("verbose")));
    let tasks = is_verbose.then(|| {
        let runs = state.tasks.last_runs().into_iter();
        runs.map(|(name, run)| TaskRun {
            name,
            last_run_at: run.at,
            duration_ms: run.took.as_secs_f64() * 1000.0,
            result: RESULTS[usize::from(run.error.is_some())],
        })
        .collect()
    });
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, esp, reasons, tasks }))
}
