//! A hosting agent in JSON, and the code that enrols one.

use super::{
    answer::{Links, Representation},
    fields::Fields,
    property::{
        LINKS, Property,
        PropertyType::{Enum, Id, Integer, Ip, Object, Text, Time},
    },
};
use crate::error::ApiError;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use std::net::IpAddr;
use wicketgate_link::{AgentShareState, AgentShares};
use wicketgate_model::{
    AgentId, AgentName, AgentReport, EnrollmentId, EnvironmentId, EnvironmentKey, FrontdoorId, ShareId, ZId,
};
use wicketgate_store::{AgentRow, column::agent as column};

pub(in crate::api) static PROPERTIES: &[Property] = &[
    Property::new("id", Id("agt-")).column(&column::ID),
    Property::new("frontdoorId", Id("")).column(&column::FRONTDOOR),
    Property::new("environmentId", Id("env-")).column(&column::ENVIRONMENT),
    Property::new("envZId", Text).column(&column::Z_ID).described_as("zId"),
    Property::new("name", Text).column(&column::NAME).described_as("agentName").writable(),
    Property::new("status", Enum(&[CONNECTED, OFFLINE])).column(&column::STATUS),
    Property::new("version", Text).column(&column::VERSION),
    Property::new("address", Ip).column(&column::ADDRESS),
    Property::new("connectedSince", Time).column(&column::CONNECTED_SINCE),
    Property::new("lastSeen", Time).column(&column::LAST_SEEN),
    Property::new("unansweredSince", Time).optional(),
    Property::new("clockSecondsAhead", Integer).optional(),
    Property::new("shares", Object).optional(),
    Property::new("report", Object).optional(),
    Property::new("createdAt", Time).column(&column::CREATED_AT),
    LINKS,
];
const CONNECTED: &str = "CONNECTED";
const OFFLINE: &str = "OFFLINE";

#[serde_with::skip_serializing_none]
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
    version: Option<String>,
    address: Option<IpAddr>,
    connected_since: Option<Timestamp>,
    /// When it was last connected; absent while it is connected.
    last_seen: Option<Timestamp>,
    /// When its last message arrived, if it is connected and does not answer any more.
    unanswered_since: Option<Timestamp>,
    /// How far the clock of its host is ahead of the gateway's, if they differ by a minute.
    clock_seconds_ahead: Option<i64>,
    /// As the agent reports them while it is connected.
    shares: Option<Vec<AgentShare>>,
    /// Its last one, in the answer about this agent alone.
    report: Option<Report>,
    created_at: Timestamp,
}

#[derive(Debug, Serialize)]
struct Report {
    /// When it arrived first.
    at: Timestamp,
    #[serde(flatten)]
    report: AgentReport,
}

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
struct AgentShare {
    id: ShareId,
    state: &'static str,
    message: Option<String>,
}

/// The states of a share at an agent.
const SHARE_STATES: [&str; 4] = ["SERVING", "PENDING", "REFUSED", "UNREACHABLE"];

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
    /// With the states of its shares that its gateway reports.
    pub(in crate::api) fn seen(row: AgentRow, reported: Option<AgentShares>) -> Self {
        let unanswered_since = reported.as_ref().and_then(|agent| agent.unanswered_since);
        let clock_seconds_ahead = reported.as_ref().and_then(|agent| agent.clock_seconds_ahead);
        let shares = reported.map(|agent| agent.shares.into_iter().map(AgentShare::of).collect());
        Self { unanswered_since, clock_seconds_ahead, shares, ..Self::of(row) }
    }

    pub(in crate::api) fn with_report(self, report: Option<(Timestamp, AgentReport)>) -> Self {
        Self { report: report.map(|(at, report)| Report { at, report }), ..self }
    }

    pub(in crate::api) fn of(row: AgentRow) -> Self {
        Self {
            id: row.id,
            frontdoor_id: row.frontdoor,
            environment_id: row.environment,
            env_z_id: row.z_id,
            name: row.given_name.map_or(row.name, |name| name.to_string()),
            status: if row.connected_since.is_some() { CONNECTED } else { OFFLINE },
            version: row.version,
            address: row.address,
            connected_since: row.connected_since,
            last_seen: row.last_seen,
            unanswered_since: None,
            clock_seconds_ahead: None,
            shares: None,
            report: None,
            created_at: row.created_at,
        }
    }
}

/// What the agent is named after a merge patch; `None`: as it reports.
pub(in crate::api) fn name(row: &AgentRow, patch: Map<String, Value>) -> Result<Option<AgentName>, ApiError> {
    let is_kept = !patch.contains_key("name");
    let mut fields = Fields::new(patch, PROPERTIES);
    let name = fields.text("name");
    fields.finish(|| Some(if is_kept { row.given_name.clone() } else { name }))
}

impl Representation for Agent {
    const LIST: &'static str = "agentList";

    fn links(&self) -> Links {
        let base = format!("/frontdoor/v2/{}", self.frontdoor_id);
        vec![
            ("self", format!("{base}/agents/{}", self.id)),
            ("environment", format!("{base}/environments/{}", self.environment_id)),
        ]
    }
}

/// An enrolment code, which is returned only once.
#[serde_with::skip_serializing_none]
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Enrollment<'a> {
    pub(in crate::api) id: EnrollmentId,
    pub(in crate::api) frontdoor_id: FrontdoorId,
    pub(in crate::api) enrollment_code: &'a str,
    pub(in crate::api) expires_at: Timestamp,
    pub(in crate::api) environment_id: Option<EnvironmentId>,
    pub(in crate::api) agent_server: Option<String>,
}

pub(in crate::api) static ENROLLMENT_PROPERTIES: &[Property] = &[Property::new("environmentId", Text)
    .described_as("environmentKey")
    .column(&column::ENVIRONMENT)
    .writable()];

/// The environment that gets one more agent, if the body names one.
pub(in crate::api) fn enrollment(body: Map<String, Value>) -> Result<Option<EnvironmentKey>, ApiError> {
    let mut fields = Fields::new(body, ENROLLMENT_PROPERTIES);
    let environment = fields.text("environmentId");
    fields.finish(|| Some(environment))
}
