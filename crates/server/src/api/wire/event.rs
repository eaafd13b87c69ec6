//! Server-sent events, and the header that resumes a stream.

use crate::{error::ApiError, reason_link::ReasonLinks};
use axum::http::HeaderMap;
use jiff::Timestamp;
use serde::Serialize;
use wicketgate_store::EventRow;

/// Milliseconds after which a disconnected reader reconnects.
const RETRY: u32 = 2000;

#[serde_with::skip_serializing_none]
#[derive(Serialize)]
struct Event<'a> {
    r#type: &'static str,
    id: &'a str,
    name: Option<&'a str>,
    status: &'a str,
    #[serde(rename = "statusDetail")]
    status_detail: Option<Detail<'a>>,
    at: Timestamp,
}

#[derive(Serialize)]
struct Detail<'a> {
    reason: &'a str,
    message: &'a str,
    #[serde(rename = "_links")]
    links: ReasonLinks,
}

/// The first lines of a stream. One that begins with what happens from now on has the id of the newest event, so that a reader
/// that loses its connection before the first event misses none.
pub(in crate::api) fn greeting(begins_after: Option<u64>) -> String {
    let id = begins_after.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}retry: {RETRY}\n\n")
}

pub(in crate::api) fn heartbeat() -> String {
    ":\n\n".to_owned()
}

/// Events up to `newest` are no longer kept, or were never written: the client must read the lists again.
pub(in crate::api) fn reset(newest: u64) -> String {
    format!("id: {newest}\nevent: reset\ndata: {{\"type\":\"reset\"}}\n\n")
}

pub(in crate::api) fn event(row: &EventRow) -> String {
    let kind = row.kind.as_str();
    let event = Event {
        r#type: kind,
        id: &row.resource,
        name: row.name.as_deref(),
        status: &row.status,
        status_detail: row.reason.as_deref().map(|reason| Detail {
            reason,
            message: row.message.as_deref().unwrap_or_default(),
            links: ReasonLinks::of(reason),
        }),
        at: row.at,
    };
    // Compact JSON contains no line ends.
    let data = serde_json::to_string(&event).unwrap_or_default();
    format!("id: {}\nevent: {kind}\ndata: {data}\n\n", row.id)
}

/// The `Last-Event-ID` of a reader that reconnects.
pub(in crate::api) fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    // A reader that has seen no event has an empty id.
    let Some(value) = headers.get("last-event-id").filter(|v| !v.is_empty()) else { return Ok(None) };
    let text = value.to_str().unwrap_or("?");
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let id = digits.then(|| text.parse().ok().filter(|id| i64::try_from(*id).is_ok())).flatten();
    id.map(Some).ok_or_else(|| ApiError::bad_request("Last-Event-ID must be the id of an event"))
}
