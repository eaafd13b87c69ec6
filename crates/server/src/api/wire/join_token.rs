//! A join token in JSON, with its secret once, and without it.

use super::{
    answer::{Links, Representation},
    fields::Fields,
    gateway::Gateway,
    property::{
        LINKS, Property,
        PropertyType::{Enum, Id, Text, Time},
    },
};
use crate::error::ApiError;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use wicketgate_model::{GatewayId, JoinTokenId, LocationId};
use wicketgate_store::{EnrollmentCodeState, JoinTokenRow, column::join_token as column};

pub(in crate::api) static PROPERTIES: &[Property] = &[
    Property::new("id", Id("gwj-")).column(&column::ID),
    Property::new("locationId", Text).column(&column::LOCATION).described_as("gatewayLocation"),
    Property::new("gatewayId", Id("gwy-")).column(&column::GATEWAY).described_as("replacedGateway"),
    Property::new("state", Enum(EnrollmentCodeState::NAMES)).described_as("codeState"),
    Property::new("expiresAt", Time).column(&column::EXPIRES_AT).described_as("tokenExpiresAt"),
    Property::new("createdAt", Time).column(&column::CREATED_AT),
    Property::new("createdBy", Text).column(&column::CREATED_BY),
    LINKS,
];

pub(in crate::api) static REQUEST_PROPERTIES: &[Property] = &[
    Property::new("locationId", Text).described_as("gatewayLocation").writable(),
    Property::new("gatewayId", Id("gwy-")).described_as("replacedGateway").writable(),
];

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct ListedJoinToken {
    id: JoinTokenId,
    location_id: LocationId,
    /// That is replaced; absent if the token makes a new one.
    gateway_id: Option<GatewayId>,
    state: &'static str,
    expires_at: Timestamp,
    created_at: Timestamp,
    created_by: String,
}

impl ListedJoinToken {
    pub(in crate::api) const PATH: &'static str = "/frontdoor/v2/gateways/join-tokens";

    pub(in crate::api) fn of(row: JoinTokenRow, now: Timestamp) -> Self {
        Self {
            state: row.state(now).as_str(),
            id: row.id,
            location_id: row.location,
            gateway_id: row.gateway,
            expires_at: row.expires_at,
            created_at: row.created_at,
            created_by: row.created_by,
        }
    }
}

impl Representation for ListedJoinToken {
    const LIST: &'static str = "joinTokenList";

    fn links(&self) -> Links {
        let gateway = self.gateway_id.map(|id| ("gateway", format!("{}/{id}", Gateway::PATH)));
        let own = ("self", format!("{}/{}", Self::PATH, self.id));
        [Some(own), gateway].into_iter().flatten().collect()
    }
}

/// A join token, which is returned only once.
#[serde_with::skip_serializing_none]
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct JoinTokenCode<'a> {
    pub(in crate::api) id: JoinTokenId,
    pub(in crate::api) location_id: LocationId,
    pub(in crate::api) gateway_id: Option<GatewayId>,
    pub(in crate::api) join_token: &'a str,
    /// Where the gateway can join.
    pub(in crate::api) servers: &'a [String],
    pub(in crate::api) expires_at: Timestamp,
}

/// What a token is for.
#[derive(Debug)]
pub(in crate::api) enum NewGatewayPlace {
    /// A new gateway of this location.
    At(LocationId),
    /// Another machine of this gateway.
    Of(GatewayId),
}

pub(in crate::api) fn place(body: Map<String, Value>) -> Result<NewGatewayPlace, ApiError> {
    let mut fields = Fields::new(body, REQUEST_PROPERTIES);
    let (location, gateway) = (fields.text("locationId"), fields.text("gatewayId"));
    let place = match (location, gateway) {
        (Some(location), None) => Some(NewGatewayPlace::At(location)),
        (None, Some(gateway)) => Some(NewGatewayPlace::Of(gateway)),
        (None, None) => {
            fields.fault("locationId", "is required, or gatewayId of the gateway that is replaced");
            None
        }
        (Some(_), Some(_)) => {
            fields
                .fault("locationId", "must be left out with gatewayId: a replaced gateway stays where it is");
            None
        }
    };
    fields.finish(|| place)
}
