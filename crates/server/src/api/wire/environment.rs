//! An environment in JSON, with its agents.

use super::{
    agent::Agent,
    answer::Links,
    fields::{Fields, Properties},
};
use crate::error::ApiError;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use wicketgate_model::{EnvironmentId, FrontdoorId, ResourceName, ZId};
use wicketgate_store::{AgentRow, EnvironmentRow};

pub(in crate::api) const PROPERTIES: Properties = Properties {
    writable: &["name"],
    read_only: &["id", "zId", "frontdoorId", "status", "agents", "createdAt", "updatedAt", "_links"],
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Environment {
    id: EnvironmentId,
    z_id: ZId,
    frontdoor_id: FrontdoorId,
    name: ResourceName,
    /// `ACTIVE` while at least one agent is connected, else `OFFLINE`.
    status: &'static str,
    agents: Vec<Agent>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl Environment {
    /// Of `agents`, it takes its own.
    pub(in crate::api) fn of(row: EnvironmentRow, agents: &[AgentRow]) -> Self {
        let own = agents.iter().filter(|a| a.environment == row.id);
        Self {
            id: row.id,
            z_id: row.z_id,
            frontdoor_id: row.frontdoor,
            name: row.name,
            status: if row.active { "ACTIVE" } else { "OFFLINE" },
            agents: own.cloned().map(Agent::of).collect(),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }

    pub(in crate::api) fn links(&self) -> Links {
        vec![("self", format!("/frontdoor/v2/{}/environments/{}", self.frontdoor_id, self.id))]
    }
}

/// The name after a merge patch.
pub(in crate::api) fn name(
    row: &EnvironmentRow,
    mut patch: Map<String, Value>,
) -> Result<ResourceName, ApiError> {
    patch.entry("name").or_insert_with(|| json!(row.name));
    let mut fields = Fields::new(patch, &PROPERTIES);
    let name = fields.required("name");
    fields.finish(name)
}
