//! `statusDetail`, the same for tunnels and shares.

use super::{property::REASONS, schema};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use wicketgate_model::{Detail, Reason, Standing};

/// Why a status is not `DEPLOYED`, or what impairs a resource that is.
#[derive(Debug, Serialize)]
pub(super) struct StatusDetail {
    reason: Reason,
    message: String,
    since: Timestamp,
}

impl StatusDetail {
    /// A row without a detail of its own waits for the gateway.
    pub(super) fn of(standing: &Standing) -> Option<Self> {
        let detail = standing.detail.clone().or_else(|| Detail::waiting(standing.status, standing.since))?;
        Some(Self { reason: detail.problem.reason, message: detail.problem.message, since: detail.since })
    }
}

pub(in crate::api) fn schema() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["reason", "message", "since"],
        "description": "Why the status is not DEPLOYED, or what impairs a deployed resource",
        "properties": {
            "reason": schema::one_of(REASONS),
            "message": schema::text("no agent of the environment is connected"),
            "since": schema::time(""),
        },
    })
}
