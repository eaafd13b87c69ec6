//! Lines of an IKE log, as JSON lines or as server-sent events.

use super::{
    event::{greeting, heartbeat, last_event_id},
    query::Query,
};
use crate::error::ApiError;
use axum::http::{HeaderMap, HeaderValue, header::ACCEPT};
use jiff::Timestamp;
use serde::Serialize;
use wicketgate_link::IkeLogLine;
use wicketgate_model::GatewayId;

/// What the reader accepts; JSON lines if it accepts both equally.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum LogFormat {
    JsonLines,
    Events,
}

#[derive(Debug)]
pub(in crate::api) struct LogRequest {
    /// The number of the last line that the reader has.
    pub(in crate::api) after: u64,
    /// Lines from this time on.
    pub(in crate::api) from: Option<Timestamp>,
    pub(in crate::api) follow: bool,
    /// `None`: the first of the tunnel.
    pub(in crate::api) gateway: Option<GatewayId>,
}

#[serde_with::skip_serializing_none]
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    number: u64,
    at: Timestamp,
    group: &'a str,
    ike_sa: Option<u64>,
    message: &'a str,
}

impl LogFormat {
    pub(in crate::api) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let values: Vec<_> = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
        let name = |range: &str| range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let names: Vec<_> = values.iter().flat_map(|v| v.split(',')).map(name).collect();
        let has = |wanted: &[&str]| names.iter().any(|name| wanted.contains(&name.as_str()));
        match () {
            () if names.is_empty() || has(&["*/*", "application/*", "application/x-ndjson"]) => {
                Some(Self::JsonLines)
            }
            () if has(&["text/*", "text/event-stream"]) => Some(Self::Events),
            () => None,
        }
    }

    pub(in crate::api) fn media_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::JsonLines => "application/x-ndjson",
            Self::Events => "text/event-stream",
        })
    }

    pub(in crate::api) fn line(self, line: &IkeLogLine) -> String {
        let IkeLogLine { number, at, group, ike_sa, text } = line;
        let shown = Line { number: *number, at: *at, group, ike_sa: *ike_sa, message: text };
        // Compact JSON contains no line ends.
        let data = serde_json::to_string(&shown).unwrap_or_default();
        match self {
            Self::JsonLines => format!("{data}\n"),
            Self::Events => format!("id: {number}\nevent: ike-log\ndata: {data}\n\n"),
        }
    }

    /// JSON lines have no comments.
    pub(in crate::api) fn greeting(self) -> String {
        if self == Self::Events { greeting(None) } else { String::new() }
    }

    pub(in crate::api) fn heartbeat(self) -> String {
        if self == Self::Events { heartbeat() } else { String::new() }
    }
}

/// `since` (a number or a time), `follow` and `Last-Event-ID`, which counts before `since`.
pub(in crate::api) fn request(headers: &HeaderMap, query: Query) -> Result<LogRequest, ApiError> {
    let [since, follow, gateway] = query.values(["since", "follow", "gatewayId"])?;
    let gateway = gateway.map(|id| id.parse::<GatewayId>());
    let gateway =
        gateway.transpose().map_err(|_| ApiError::bad_request("gatewayId must be the id of a gateway"))?;
    let resumed = last_event_id(headers)?;
    let follow = match follow.as_deref() {
        None | Some("false") => false,
        Some("true" | "") => true,
        Some(_) => return Err(ApiError::bad_request("follow must be true or false")),
    };
    let rule =
        || ApiError::bad_request("since must be a time like 2030-12-31T23:59:59Z, or the number of a line");
    let (number, from) = match since.as_deref() {
        None => (None, None),
        Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            (Some(text.parse().map_err(|_| rule())?), None)
        }
        Some(text) => (None, Some(text.parse().map_err(|_| rule())?)),
    };
    Ok(LogRequest { after: resumed.or(number).unwrap_or_default(), from, follow, gateway })
}
