//! An environment in JSON, with its agents.

use super::{
    agent::Agent,
    answer::{Links, Representation},
    fields::{Fields, patched},
    property::{
        LINKS, Property,
        PropertyType::{Enum, Id, Object, Text, Time},
    },
};
use crate::error::ApiError;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use wicketgate_model::{EnvironmentId, FrontdoorId, ResourceName, ZId};
use wicketgate_store::{AgentRow, EnvironmentRow, column::environment as column};

pub(in crate::api) static PROPERTIES: &[Property] = &[
    Property::new("id", Id("env-")).column(&column::ID),
    Property::new("zId", Text).column(&column::Z_ID),
    Property::new("frontdoorId", Id("")).column(&column::FRONTDOOR),
    Property::new("name", Text).column(&column::NAME).required(),
    Property::new("status", Enum(&[ACTIVE, OFFLINE])).column(&column::STATUS),
    Property::new("agents", Object),
    Property::new("createdAt", Time).column(&column::CREATED_AT),
    Property::new("updatedAt", Time).column(&column::UPDATED_AT),
    LINKS,
];
const ACTIVE: &str = "ACTIVE";
const OFFLINE: &str = "OFFLINE";

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
    /// Takes the environment's agents out of `agents`.
    pub(in crate::api) fn of(row: EnvironmentRow, agents: &[AgentRow]) -> Self {
        let own = agents.iter().filter(|a| a.environment == row.id);
        Self {
            id: row.id,
            z_id: row.z_id,
            frontdoor_id: row.frontdoor,
            name: row.name,
            status: if row.active { ACTIVE } else { OFFLINE },
            agents: own.cloned().map(Agent::of).collect(),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

impl Representation for Environment {
    const LIST: &'static str = "environmentList";

    fn links(&self) -> Links {
        vec![("self", format!("/frontdoor/v2/{}/environments/{}", self.frontdoor_id, self.id))]
    }
}

/// The name after a merge patch.
pub(in crate::api) fn name(
    row: &EnvironmentRow,
    patch: Map<String, Value>,
) -> Result<ResourceName, ApiError> {
    let whole = patched(&Environment::of(row.clone(), &[]), PROPERTIES, patch);
    let mut fields = Fields::new(whole, PROPERTIES);
    let name = fields.text("name");
    fields.finish(|| name)
}
