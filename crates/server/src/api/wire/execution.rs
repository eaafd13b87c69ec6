//! The record of a write in JSON.

use super::answer::Links;
use jiff::Timestamp;
use serde::Serialize;
use wicketgate_model::{ExecutionId, FrontdoorId};
use wicketgate_store::ExecutionRow;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Execution {
    id: ExecutionId,
    /// The same for all that one request set off.
    process_id: ExecutionId,
    #[serde(skip_serializing_if = "Option::is_none")]
    frontdoor_id: Option<FrontdoorId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization_id: Option<String>,
    actor: String,
    action: &'static str,
    resource_type: &'static str,
    resource_id: String,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<Timestamp>,
}

impl Execution {
    pub(in crate::api) fn of(row: ExecutionRow) -> Self {
        Self {
            id: row.id,
            process_id: row.process,
            frontdoor_id: row.frontdoor,
            organization_id: row.organization,
            actor: row.actor,
            action: row.action.as_str(),
            resource_type: row.resource_type.as_str(),
            resource_id: row.resource,
            status: row.status.as_str(),
            message: row.message,
            created_at: row.created_at,
            finished_at: row.finished_at,
        }
    }

    /// In the record at `path`.
    pub(in crate::api) fn links(&self, path: &str) -> Links {
        vec![("self", format!("{path}/{}", self.id))]
    }
}
