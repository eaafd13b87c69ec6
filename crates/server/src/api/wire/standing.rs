//! `status` and `statusDetail`, alike for tunnels and shares.

use jiff::Timestamp;
use serde::Serialize;
use wicketgate_model::{Reason, Standing, Status};

/// Why a status is not what it should be. There whenever something is still to be done or is impaired; a change
/// that no reconciler has looked at yet is pending.
#[derive(Debug, Serialize)]
pub(super) struct StatusDetail {
    reason: Reason,
    message: String,
    since: Timestamp,
}

impl StatusDetail {
    pub(super) fn of(standing: &Standing) -> Option<Self> {
        let pending = |message: &str| {
            Some(Self { reason: Reason::Pending, message: message.to_owned(), since: standing.since })
        };
        match (&standing.detail, standing.status) {
            (Some(detail), _) => Some(Self {
                reason: detail.problem.reason,
                message: detail.problem.message.clone(),
                since: detail.since,
            }),
            (None, Status::Deployed) => None,
            // A row says why from its first moment on.
            (None, _) => pending("the gateway has not reported this change yet"),
        }
    }
}
