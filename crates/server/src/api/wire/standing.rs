//! `status` and `statusDetail`, alike for tunnels and shares.

use jiff::Timestamp;
use serde::Serialize;
use wicketgate_model::{Reason, Standing};

/// Why a status is not what it should be.
#[derive(Debug, Serialize)]
pub(super) struct StatusDetail {
    reason: Reason,
    message: String,
    since: Timestamp,
}

impl StatusDetail {
    pub(super) fn of(standing: &Standing) -> Option<Self> {
        standing.detail.as_ref().map(|d| Self {
            reason: d.problem.reason,
            message: d.problem.message.clone(),
            since: d.since,
        })
    }
}
