//! An IPsec tunnel in JSON. Its key is written, and read through its VPN configuration only.

use super::{
    answer::Links,
    connection::LiveConnection,
    fields::{Fields, Properties, merge},
    standing::StatusDetail,
};
use crate::{error::ApiError, state::now};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::net::Ipv4Addr;
use wicketgate_model::{
    Connection, EspProposal, EspProposals, FrontdoorId, IkeProposal, IkeProposals, Invalid, LocationId,
    PeerAddress, PeerCidr, PeerId, PreSharedKey, ResourceName, Status, TunnelId,
};
use wicketgate_store::{Filter, ListRequest, TUNNELS, Tags, TunnelRow, TunnelSpec, Wanted};

const GATEWAY: &str = "gatewayPublicIp";

pub(in crate::api) const PROPERTIES: Properties = Properties {
    writable: &[
        "name",
        "locationId",
        "peerPublicIp",
        "peerCidr",
        "peerId",
        "preSharedKey",
        "ikeProposals",
        "espProposals",
        "initiate",
        "tags",
    ],
    read_only: &[
        "id",
        "frontdoorId",
        "status",
        "statusDetail",
        "loadBalancerIp",
        GATEWAY,
        "connection",
        "previousKeyUntil",
        "createdAt",
        "updatedAt",
        "deletedAt",
        "createdBy",
        "_links",
    ],
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Tunnel {
    id: TunnelId,
    name: ResourceName,
    frontdoor_id: FrontdoorId,
    location_id: LocationId,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_detail: Option<StatusDetail>,
    peer_public_ip: PeerAddress,
    peer_cidr: PeerCidr,
    peer_id: PeerId,
    load_balancer_ip: Ipv4Addr,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_public_ip: Option<Ipv4Addr>,
    connection: LiveConnection,
    #[serde(skip_serializing_if = "Option::is_none")]
    ike_proposals: Option<IkeProposals>,
    #[serde(skip_serializing_if = "Option::is_none")]
    esp_proposals: Option<EspProposals>,
    initiate: bool,
    /// Until then, a key before the present one works, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_key_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Tags::is_empty")]
    tags: Tags,
    created_at: Timestamp,
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<Timestamp>,
    created_by: String,
}

impl Tunnel {
    pub(in crate::api) fn of(row: TunnelRow, gateway: Option<Ipv4Addr>) -> Self {
        Self {
            status_detail: StatusDetail::of(&row.standing),
            id: row.id,
            name: row.name,
            frontdoor_id: row.frontdoor,
            location_id: row.location,
            status: row.standing.status,
            peer_public_ip: row.peer_address,
            peer_cidr: row.peer_cidr,
            peer_id: row.peer_id,
            load_balancer_ip: row.load_balancer_ip,
            gateway_public_ip: gateway,
            connection: row.connection.unwrap_or_else(|| Connection::down(row.created_at)).into(),
            ike_proposals: row.ike_proposals,
            esp_proposals: row.esp_proposals,
            initiate: row.initiate,
            previous_key_until: row.previous_keys.valid(now()).map(|(_, until)| *until).max(),
            tags: row.tags,
            created_at: row.created_at,
            updated_at: row.updated_at,
            deleted_at: row.deleted_at,
            created_by: row.created_by,
        }
    }

    pub(in crate::api) fn path(frontdoor: FrontdoorId, id: TunnelId) -> String {
        format!("/frontdoor/v2/{frontdoor}/ipsec-tunnels/{id}")
    }

    pub(in crate::api) fn links(&self) -> Links {
        let own = Self::path(self.frontdoor_id, self.id);
        vec![
            ("metrics", format!("{own}/metrics")),
            ("vpnConfig", format!("{own}/vpn-config")),
            ("connectionHistory", format!("{own}/connection-history")),
            ("self", own),
        ]
    }
}

/// The request with locations in place of their gateways' addresses, which the database does not know.
pub(in crate::api) fn resolved(
    mut request: ListRequest,
    locations: &[LocationId],
    address: impl Fn(&LocationId) -> Option<Ipv4Addr>,
) -> ListRequest {
    let Some(location) = TUNNELS.property("locationId") else { return request };
    for filter in request.filters.iter_mut().filter(|f| f.property.name == GATEWAY) {
        let is_asked = |id: &&LocationId| {
            address(id).is_some_and(|address| filter.values.contains(&Wanted::Text(address.to_string())))
        };
        let values = locations.iter().filter(is_asked).map(|id| Wanted::Text(id.to_string())).collect();
        *filter = Filter { property: location, values };
    }
    request
}

/// What a body asks for; a key that it leaves out is `key`. `old` is the tunnel that it is to replace.
pub(in crate::api) fn spec(
    body: Map<String, Value>,
    locations: &[LocationId],
    key: PreSharedKey,
    old: Option<&TunnelRow>,
) -> Result<TunnelSpec, ApiError> {
    let mut fields = Fields::new(body, &PROPERTIES);
    let name = fields.required::<ResourceName>("name");
    let location = fields.required::<LocationId>("locationId");
    let peer_address = fields.required::<PeerAddress>("peerPublicIp");
    let peer_cidr = fields.required::<PeerCidr>("peerCidr");
    let peer_id = fields.optional::<PeerId>("peerId");
    let key = fields.optional::<PreSharedKey>("preSharedKey").unwrap_or(key);
    let ike_proposals = fields.optional_list::<IkeProposal, IkeProposals>("ikeProposals");
    let esp_proposals = fields.optional_list::<EspProposal, EspProposals>("espProposals");
    let initiate = fields.optional_boolean("initiate").unwrap_or(false);
    let tags = fields.tags();
    match (&location, old) {
        (Some(location), Some(old)) if *location != old.location => {
            fields.fault("locationId", "can't be changed: delete the tunnel and create another one");
        }
        (Some(location), None) if !locations.contains(location) => {
            let known: Vec<_> = locations.iter().map(LocationId::as_str).collect();
            fields.fault("locationId", format!("must be a location with a gateway: {}", known.join(", ")));
        }
        _ => {}
    }
    let made = || {
        let peer_address = peer_address?;
        // An address is an identity too, so this never fails.
        let peer_id = peer_id.or_else(|| peer_address.to_string().parse().ok())?;
        Some(TunnelSpec {
            name: name?,
            location: location?,
            peer_address,
            peer_cidr: peer_cidr?,
            peer_id,
            key,
            ike_proposals,
            esp_proposals,
            initiate,
            tags,
        })
    };
    let made = made();
    fields.finish(made)
}

/// What a body of PATCH makes of the tunnel as it is: what a PUT would have to say. An identity that is the peer's
/// address follows it.
pub(in crate::api) fn patched(row: &TunnelRow, patch: Map<String, Value>) -> Map<String, Value> {
    let mut whole = Map::new();
    for (name, value) in [
        ("name", json!(row.name)),
        ("locationId", json!(row.location)),
        ("peerPublicIp", json!(row.peer_address)),
        ("peerCidr", json!(row.peer_cidr)),
        ("ikeProposals", json!(row.ike_proposals)),
        ("espProposals", json!(row.esp_proposals)),
        ("initiate", json!(row.initiate)),
        ("tags", json!(row.tags)),
    ] {
        whole.insert(name.to_owned(), value);
    }
    if row.peer_id.as_str() != row.peer_address.to_string() {
        whole.insert("peerId".to_owned(), json!(row.peer_id));
    }
    merge(&mut whole, patch);
    whole
}

pub(in crate::api) const KEY_PROPERTIES: Properties =
    Properties { writable: &["preSharedKey", "graceSeconds"], read_only: &[] };

/// How long the keys before a new one still work. By default a day: time to reach somebody at the other site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) struct Grace(SignedDuration);

impl Grace {
    /// As long as what was deleted is remembered.
    pub(in crate::api) const MOST_SECONDS: i64 = 30 * 24 * 3600;

    pub(in crate::api) fn get(self) -> SignedDuration {
        self.0
    }
}

impl Default for Grace {
    fn default() -> Self {
        Self(SignedDuration::from_hours(24))
    }
}

impl TryFrom<i64> for Grace {
    type Error = Invalid;

    fn try_from(seconds: i64) -> Result<Self, Invalid> {
        if (0..=Self::MOST_SECONDS).contains(&seconds) {
            Ok(Self(SignedDuration::from_secs(seconds)))
        } else {
            Err(Invalid(format!("must be between 0 and {}", Self::MOST_SECONDS)))
        }
    }
}

/// The key that a body asks for, if it asks for one, and how long older ones are to work.
pub(in crate::api) fn new_key(body: Map<String, Value>) -> Result<(Option<PreSharedKey>, Grace), ApiError> {
    let mut fields = Fields::new(body, &KEY_PROPERTIES);
    let key = fields.optional("preSharedKey");
    let grace = fields.optional_integer("graceSeconds").unwrap_or_default();
    fields.finish(Some((key, grace)))
}
