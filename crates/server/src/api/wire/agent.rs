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
use wicketgate_link::{AgentShareState, AgentShares};
use wicketgate_model::{AgentId, EnvironmentId, FrontdoorId, ShareId, ZId};
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
    /// Of one that is not connected, and has been.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Timestamp>,
    /// Its own view of them, while it is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    shares: Option<Vec<AgentShare>>,
    created_at: Timestamp,
}

#[derive(Debug, Serialize)]
struct AgentShare {
    id: ShareId,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

/// How an agent can have a share.
pub(in crate::api) const SHARE_STATES: [&str; 4] = ["SERVING", "PENDING", "REFUSED", "UNREACHABLE"];

impl AgentShare {
    fn of((id, state): (ShareId, AgentShareState)) -> Self {
        let [serving, pending, refused, unreachable] = SHARE_STATES;
        let (state, message) = match state {
            AgentShareState::Serving => (serving, None),
            AgentShareState::Pending => (pending, None),
            AgentShareState::Refused(why) => (refused, Some(why)),
            AgentShareState::Unreachable(why) => (unreachable, Some(why)),
        };
        Self { id, state, message }
    }
}

impl Agent {
    /// With what its gateway has heard of it.
    pub(in crate::api) fn seen(row: AgentRow, reported: Option<AgentShares>) -> Self {
        let shares = reported.map(|agent| agent.shares.into_iter().map(AgentShare::of).collect());
        Self { shares, ..Self::of(row) }
    }

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
            last_seen: row.last_seen,
            shares: None,
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
