//! The record of a write in JSON.

use super::{
    answer::{Links, Representation},
    property::{
        LINKS, Property,
        PropertyType::{Enum, Id, Text, Time},
    },
};
use jiff::Timestamp;
use serde::Serialize;
use std::net::IpAddr;
use wicketgate_model::{ExecutionId, FrontdoorId};
use wicketgate_store::{Action, ExecutionRow, ExecutionStatus, ResourceType, column::execution as column};

pub(in crate::api) static PROPERTIES: &[Property] = &[
    Property::new("id", Id("exe-")).column(&column::ID),
    Property::new("processId", Id("exe-")).column(&column::PROCESS),
    Property::new("frontdoorId", Id("")).column(&column::FRONTDOOR).optional(),
    Property::new("organizationId", Text).column(&column::ORGANIZATION).described_as("executionOrganization"),
    Property::new("actor", Text).column(&column::ACTOR),
    Property::new("actorName", Text).column(&column::ACTOR_NAME),
    Property::new("sourceAddress", Text).column(&column::SOURCE_ADDRESS),
    Property::new("requestId", Text).column(&column::REQUEST_ID),
    Property::new("action", Enum(Action::NAMES)).column(&column::ACTION),
    Property::new("resourceType", Enum(ResourceType::NAMES)).column(&column::RESOURCE_TYPE),
    Property::new("resourceId", Text).column(&column::RESOURCE),
    Property::new("resourceName", Text).column(&column::RESOURCE_NAME),
    Property::new("status", Enum(ExecutionStatus::NAMES)).column(&column::STATUS),
    Property::new("message", Text).column(&column::MESSAGE),
    Property::new("createdAt", Time).column(&column::CREATED_AT),
    Property::new("finishedAt", Time).column(&column::FINISHED_AT),
    LINKS,
];

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Execution<'a> {
    /// The path of the list that contains it.
    #[serde(skip)]
    list: &'a str,
    id: ExecutionId,
    /// The same for all executions of one request.
    process_id: ExecutionId,
    frontdoor_id: Option<FrontdoorId>,
    organization_id: Option<String>,
    actor: String,
    actor_name: Option<String>,
    source_address: Option<IpAddr>,
    request_id: Option<String>,
    action: &'static str,
    resource_type: &'static str,
    resource_id: String,
    resource_name: Option<String>,
    status: &'static str,
    message: Option<String>,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
}

impl<'a> Execution<'a> {
    pub(in crate::api) fn of(row: ExecutionRow, list: &'a str) -> Self {
        Self {
            list,
            id: row.id,
            process_id: row.process,
            frontdoor_id: row.frontdoor,
            organization_id: row.organization,
            actor: row.actor,
            actor_name: row.actor_name,
            source_address: row.source_address,
            request_id: row.request_id,
            action: row.action.as_str(),
            resource_type: row.resource_type.as_str(),
            resource_id: row.resource,
            resource_name: row.resource_name,
            status: row.status.as_str(),
            message: row.message,
            created_at: row.created_at,
            finished_at: row.finished_at,
        }
    }
}

impl Representation for Execution<'_> {
    const LIST: &'static str = "executionList";

    fn links(&self) -> Links {
        vec![("self", format!("{}/{}", self.list, self.id))]
    }
}
