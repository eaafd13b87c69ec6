//! A hosting agent in JSON, and the answer to whoever enrols one.

use super::{
    answer::Links,
    fields::{Fields, Properties},
};
use crate::error::ApiError;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use std::net::IpAddr;
use wicketgate_model::{AgentId, EnvironmentId, FrontdoorId, ZId};
use wicketgate_store::AgentRow;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Agent {
    id: AgentId,
    frontdoor_id: FrontdoorId,
    environment_id: EnvironmentId,
    env_z_id: ZId,
    name: String,
    /// `CONNECTED` or `OFFLINE`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connected_since: Option<Timestamp>,
    created_at: Timestamp,
}

impl Agent {
    pub(in crate::api) fn of(row: AgentRow) -> Self {
        Self {
            id: row.id,
            frontdoor_id: row.frontdoor,
            environment_id: row.environment,
            env_z_id: row.z_id,
            name: row.name,
            status: if row.connected_since.is_some() { "CONNECTED" } else { "OFFLINE" },
            version: row.version,
            address: row.address,
            connected_since: row.connected_since,
            created_at: row.created_at,
        }
    }

    pub(in crate::api) fn links(&self) -> Links {
        let base = format!("/frontdoor/v2/{}", self.frontdoor_id);
        vec![
            ("self", format!("{base}/agents/{}", self.id)),
            ("environment", format!("{base}/environments/{}", self.environment_id)),
        ]
    }
}

/// A code, shown this once.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Enrollment<'a> {
    pub(in crate::api) frontdoor_id: FrontdoorId,
    pub(in crate::api) enrollment_code: &'a str,
    pub(in crate::api) expires_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) environment_id: Option<EnvironmentId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) agent_server: Option<String>,
}

pub(in crate::api) const PROPERTIES: Properties = Properties { writable: &["environmentId"], read_only: &[] };

/// The environment that is to get one more replica, if the body names one.
pub(in crate::api) fn enrollment(body: Map<String, Value>) -> Result<Option<EnvironmentId>, ApiError> {
    let mut fields = Fields::new(body, &PROPERTIES);
    let environment = fields.optional("environmentId");
    fields.finish(Some(environment))
}
