//! `statusDetail`, the same for tunnels and shares.

use jiff::Timestamp;
use serde::Serialize;
use wicketgate_model::{Reason, Standing};

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
        let detail = standing.detail.clone().or_else(|| standing.status.waiting(standing.since))?;
        Some(Self { reason: detail.problem.reason, message: detail.problem.message, since: detail.since })
    }
}
