//! `statusDetail`, the same for tunnels and shares.

use crate::{gateways::NotServed, reason_link::ReasonLinks};
use jiff::Timestamp;
use serde::Serialize;
use std::net::IpAddr;
use wicketgate_model::{Reason, Standing};

/// Why a status is not `DEPLOYED`, or what impairs a resource that is.
#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
pub(super) struct StatusDetail {
    reason: Reason,
    message: String,
    since: Timestamp,
    connections: Option<CountedConnections>,
    #[serde(rename = "_links")]
    links: ReasonLinks,
}

/// How many connections it is about. No row has this: it changes with every connection.
#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CountedConnections {
    not_served: u64,
    of: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<IpAddr>,
}

impl StatusDetail {
    /// A row without a detail of its own waits for the gateway.
    pub(super) fn of(standing: &Standing) -> Option<Self> {
        let detail = standing.detail.clone().or_else(|| standing.status.waiting(standing.since))?;
        let (reason, message) = (detail.problem.reason, detail.problem.message);
        let links = ReasonLinks::of(reason.as_str());
        Some(Self { reason, message, since: detail.since, connections: None, links })
    }

    pub(super) fn counted(self, NotServed { count, of, sources }: NotServed) -> Self {
        Self { connections: Some(CountedConnections { not_served: count, of, sources }), ..self }
    }
}
