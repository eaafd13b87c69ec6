//! An IPsec tunnel in JSON. Its key is write-only; the VPN configuration alone returns it.

use super::{
    answer::{Links, Representation},
    connection::LiveConnection,
    fields::{Fields, patched},
    property::{
        LINKS, Property,
        PropertyType::{Boolean, Enum, Id, Integer, Ip, List, Network, Object, Tags as TagMap, Text, Time},
    },
    status_detail::StatusDetail,
};
use crate::{error::ApiError, gateways::Gateways, state::now};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};
use std::net::Ipv4Addr;
use wicketgate_model::{
    Connection, ConnectionFault, ConnectionState, Description, EspProposal, EspProposals, FrontdoorId,
    GatewayId, IkeProposal, IkeProposals, Invalid, LoadBalancerIp, LoadBalancerPools, LocationId,
    PeerAddress, PeerCidr, PeerId, PreSharedKey, Reason, Redundancy, ResourceName, Status, TunnelId,
};
use wicketgate_store::{
    FilterValue, ListRequest, Tags, TunnelRow, TunnelSpec,
    column::{connection, tunnel as column},
};

pub(in crate::api) static PROPERTIES: &[Property] = &[
    Property::new("id", Id("tnl-")).column(&column::ID),
    Property::new("name", Text).column(&column::NAME).required(),
    Property::new("description", Text).column(&column::DESCRIPTION).writable(),
    Property::new("frontdoorId", Id("")).column(&column::FRONTDOOR),
    Property::new("locationId", Text).column(&column::LOCATION).required(),
    Property::new("status", Enum(Status::NAMES)).column(&column::STATUS),
    Property::new("statusDetail", Object).optional(),
    Property::new("statusDetail.reason", Enum(Reason::NAMES)).column(&column::DETAIL_REASON),
    Property::new("statusDetail.message", Text).column(&column::DETAIL_MESSAGE),
    Property::new("statusDetail.since", Time).column(&column::DETAIL_SINCE),
    Property::new("ready", Boolean).described_as("tunnelReady"),
    Property::new("peerPublicIp", Ip).column(&column::PEER_ADDRESS).required(),
    Property::new("peerCidr", Network).column(&column::PEER_CIDR).required(),
    Property::new("peerId", Text).column(&column::PEER_ID).writable(),
    PRE_SHARED_KEY,
    Property::new("loadBalancerIp", Ip).column(&column::LOAD_BALANCER_IP).writable(),
    Property::new("gatewayPublicIp", Ip).column(&column::GATEWAY_ADDRESS),
    Property::new("namespace", Text).optional(),
    // Schemas have the canonical notation. Other names of the same algorithms and capital letters are accepted, too.
    Property::new("ikeProposals", List(&Text)).column(&column::IKE_PROPOSALS).writable(),
    Property::new("espProposals", List(&Text)).column(&column::ESP_PROPOSALS).writable(),
    Property::new("initiate", Boolean).column(&column::INITIATE).writable(),
    Property::new("redundant", Boolean).column(&column::REDUNDANT).writable(),
    Property::new("redundancy", Enum(Redundancy::NAMES)).column(&column::REDUNDANCY),
    Property::new("enabled", Boolean).column(&column::ENABLED).writable(),
    Property::new("endpoints", Object),
    Property::new("connection", Object),
    Property::new("connection.state", Enum(ConnectionState::NAMES)).column(&connection::STATE),
    Property::new("connection.since", Time).column(&connection::SINCE),
    Property::new("connection.algorithms.ike", Text).column(&connection::IKE_ALGORITHMS),
    Property::new("connection.algorithms.esp", Text).column(&connection::ESP_ALGORITHMS),
    Property::new("connection.peer.address", Ip).column(&connection::PEER_ADDRESS),
    Property::new("connection.peer.port", Integer).column(&connection::PEER_PORT),
    Property::new("connection.peer.id", Text).column(&connection::PEER_ID),
    Property::new("connection.nat.gateway", Boolean).column(&connection::NAT_GATEWAY),
    Property::new("connection.nat.peer", Boolean).column(&connection::NAT_PEER),
    Property::new("connection.ikeSa.establishedAt", Time).column(&connection::IKE_ESTABLISHED),
    Property::new("connection.ikeSa.rekeyAt", Time).column(&connection::IKE_REKEY),
    Property::new("connection.childSa.establishedAt", Time).column(&connection::CHILD_ESTABLISHED),
    Property::new("connection.childSa.rekeyAt", Time).column(&connection::CHILD_REKEY),
    Property::new("connection.bytesIn", Integer).column(&connection::BYTES_IN),
    Property::new("connection.bytesOut", Integer).column(&connection::BYTES_OUT),
    Property::new("connection.lastError.reason", Enum(ConnectionFault::NAMES))
        .column(&connection::ERROR_REASON),
    Property::new("connection.lastError.message", Text).column(&connection::ERROR_MESSAGE),
    Property::new("connection.lastError.since", Time).column(&connection::ERROR_SINCE),
    Property::new("previousKeyUntil", Time).optional(),
    Property::new("tags", TagMap).column(&column::TAGS).writable().optional(),
    Property::new("createdAt", Time).column(&column::CREATED_AT),
    Property::new("updatedAt", Time).column(&column::UPDATED_AT),
    Property::new("deletedAt", Time).column(&column::DELETED_AT),
    Property::new("createdBy", Text).column(&column::CREATED_BY),
    Property::new("deletedBy", Text).column(&column::DELETED_BY),
    LINKS,
];

const PRE_SHARED_KEY: Property = Property::new("preSharedKey", Text).write_only();

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Tunnel {
    id: TunnelId,
    name: ResourceName,
    description: Option<Description>,
    frontdoor_id: FrontdoorId,
    location_id: LocationId,
    status: Status,
    status_detail: Option<StatusDetail>,
    ready: bool,
    peer_public_ip: PeerAddress,
    peer_cidr: PeerCidr,
    peer_id: PeerId,
    load_balancer_ip: Ipv4Addr,
    gateway_public_ip: Option<Ipv4Addr>,
    namespace: Option<String>,
    /// Where the site's device connects: the first one is preferred.
    endpoints: Vec<TunnelEndpoint>,
    connection: LiveConnection,
    ike_proposals: Option<IkeProposals>,
    esp_proposals: Option<EspProposals>,
    initiate: bool,
    redundant: bool,
    redundancy: Redundancy,
    enabled: bool,
    /// Until then, an older key works, too.
    previous_key_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Tags::is_empty")]
    tags: Tags,
    created_at: Timestamp,
    updated_at: Timestamp,
    deleted_at: Option<Timestamp>,
    created_by: String,
    deleted_by: Option<String>,
}

/// What the database does not know of a tunnel's gateway.
#[derive(Debug, Default)]
pub(in crate::api) struct TunnelPlace {
    /// The address that the remote device dials, if it is known.
    pub(in crate::api) address: Option<Ipv4Addr>,
    pub(in crate::api) namespace: Option<String>,
    /// There are no peers: sites connect to the load balancer without IPsec.
    pub(in crate::api) is_without_ipsec: bool,
    pub(in crate::api) endpoints: Vec<TunnelEndpoint>,
}

/// A tunnel at one of its gateways.
#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct TunnelEndpoint {
    gateway_id: GatewayId,
    public_address: Option<Ipv4Addr>,
    ready: bool,
    connection: LiveConnection,
}

impl TunnelEndpoint {
    pub(in crate::api) fn new(
        gateway_id: GatewayId,
        public_address: Option<Ipv4Addr>,
        ready: bool,
        (connection, peer_cidr): (Connection, PeerCidr),
    ) -> Self {
        Self { gateway_id, public_address, ready, connection: LiveConnection::of(connection, peer_cidr) }
    }
}

impl Tunnel {
    pub(in crate::api) fn of(row: TunnelRow, place: TunnelPlace) -> Self {
        let spec = row.spec;
        let connection = row.connection.unwrap_or_else(|| Connection::down(row.created_at));
        let is_connected = place.is_without_ipsec || connection.passes();
        Self {
            status_detail: StatusDetail::of(&row.standing),
            ready: row.standing.serves() && is_connected,
            id: row.id,
            name: spec.name,
            description: spec.description,
            frontdoor_id: row.frontdoor,
            location_id: spec.location,
            status: row.standing.status,
            peer_public_ip: spec.peer_address,
            peer_cidr: spec.peer_cidr,
            peer_id: spec.peer_id,
            load_balancer_ip: row.load_balancer_ip,
            gateway_public_ip: place.address,
            namespace: place.namespace,
            endpoints: place.endpoints,
            connection: LiveConnection::of(connection, spec.peer_cidr),
            ike_proposals: spec.ike_proposals,
            esp_proposals: spec.esp_proposals,
            initiate: spec.initiate,
            redundant: spec.redundant,
            redundancy: row.redundancy,
            enabled: spec.enabled,
            previous_key_until: row.previous_keys.valid(now()).map(|(_, until)| *until).max(),
            tags: spec.tags,
            created_at: row.created_at,
            updated_at: row.updated_at,
            deleted_at: row.deleted_at,
            created_by: row.created_by,
            deleted_by: row.deleted_by,
        }
    }

    pub(in crate::api) fn path(frontdoor: FrontdoorId, id: TunnelId) -> String {
        format!("/frontdoor/v2/{frontdoor}/ipsec-tunnels/{id}")
    }
}

impl Representation for Tunnel {
    const LIST: &'static str = "ipsecTunnelList";

    fn links(&self) -> Links {
        let own = Self::path(self.frontdoor_id, self.id);
        vec![
            ("metrics", format!("{own}/metrics")),
            ("vpnConfig", format!("{own}/vpn-config")),
            ("connectionHistory", format!("{own}/connection-history")),
            ("self", own),
        ]
    }
}

/// Replaces filters by a gateway's address with filters by the gateways that have it.
pub(in crate::api) fn resolved(mut request: ListRequest, gateways: &Gateways) -> ListRequest {
    for filter in request.filters.iter_mut().filter(|f| *f.column == column::GATEWAY_ADDRESS) {
        let is_wanted = |address: Ipv4Addr| filter.values.contains(&FilterValue::Text(address.to_string()));
        let found = gateways.with_address(is_wanted);
        filter.values = found.into_iter().map(|id| FilterValue::Text(id.to_string())).collect();
    }
    request
}

/// The tunnel that a body describes, and its load balancer's address, if the body has one; `key` is used if it has none.
/// `old` is the tunnel to be replaced.
pub(in crate::api) fn spec(
    body: Map<String, Value>,
    locations: &[LocationId],
    pools: &LoadBalancerPools,
    key: Option<PreSharedKey>,
    old: Option<&TunnelRow>,
) -> Result<(TunnelSpec, Option<LoadBalancerIp>), ApiError> {
    let mut fields = Fields::new(body, PROPERTIES);
    let name = fields.text::<ResourceName>("name");
    let description = fields.text("description");
    let location = fields.text::<LocationId>("locationId");
    let peer_address = fields.text::<PeerAddress>("peerPublicIp");
    let peer_cidr = fields.text::<PeerCidr>("peerCidr");
    let peer_id = fields.text::<PeerId>("peerId");
    let load_balancer_ip = fields.text::<LoadBalancerIp>("loadBalancerIp");
    // The address that the tunnel has is accepted in a body that was read: the store replaces it if it has to.
    let chosen = load_balancer_ip.filter(|ip| old.is_none_or(|old| old.load_balancer_ip != ip.get()));
    if let Some(ip) = chosen {
        if !pools.contains(ip) {
            let rule =
                format!("must be an address within a load balancer pool of the gateway, which are {pools}");
            fields.fault("loadBalancerIp", rule);
        } else if let Some(peer_cidr) = peer_cidr.filter(|net| net.contains(ip.get())) {
            fields.fault("loadBalancerIp", format!("must be outside of peerCidr, {peer_cidr}"));
        }
    }
    let key = fields.text::<PreSharedKey>("preSharedKey").or(key);
    let ike_proposals = fields.list::<IkeProposal, _>("ikeProposals", IkeProposals::try_from);
    let esp_proposals = fields.list::<EspProposal, _>("espProposals", EspProposals::try_from);
    let initiate = fields.boolean("initiate").unwrap_or(false);
    let redundant = fields.boolean("redundant").unwrap_or(false);
    let enabled = fields.boolean("enabled").unwrap_or(true);
    let tags = fields.tags();
    match (&location, old) {
        (Some(location), Some(old)) if *location != old.spec.location => {
            fields.fault("locationId", "can't be changed: delete the tunnel and create another one");
        }
        (Some(location), None) if !locations.contains(location) => {
            let known: Vec<_> = locations.iter().map(LocationId::as_str).collect();
            fields.fault("locationId", format!("must be a location with a gateway: {}", known.join(", ")));
        }
        _ => {}
    }
    fields.finish(|| {
        let peer_address = peer_address?;
        let spec = TunnelSpec {
            name: name?,
            description,
            location: location?,
            peer_address,
            peer_cidr: peer_cidr?,
            peer_id: peer_id.unwrap_or_else(|| peer_address.into()),
            pre_shared_key: key,
            ike_proposals,
            esp_proposals,
            initiate,
            redundant,
            enabled,
            tags,
        };
        Some((spec, chosen))
    })
}

/// A gateway's `own` address is no peer of it.
pub(in crate::api) fn check_peer(spec: &TunnelSpec, own: &[Ipv4Addr]) -> Result<(), ApiError> {
    let mut fields = Fields::new(Map::new(), PROPERTIES);
    if own.contains(&spec.peer_address.get()) {
        fields.fault("peerPublicIp", "must be the address of the site's device: this is the gateway's own");
    }
    fields.finish(|| Some(()))
}

/// The body of PUT that a merge patch of the tunnel stands for. An identity that is the peer's address follows it.
pub(in crate::api) fn merged(row: &TunnelRow, mut patch: Map<String, Value>) -> Map<String, Value> {
    if row.spec.peer_id == row.spec.peer_address.into() {
        patch.entry("peerId").or_insert(Value::Null);
    }
    patched(&Tunnel::of(row.clone(), TunnelPlace::default()), PROPERTIES, patch)
}

pub(in crate::api) static KEY_PROPERTIES: &[Property] = &[
    PRE_SHARED_KEY,
    Property::new("graceSeconds", Integer).write_only(),
    Property::new("cut", Boolean).write_only(),
];

/// How long older keys still work after a rotation. By default a day, to coordinate with the remote site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) struct Grace(SignedDuration);

impl Grace {
    /// The retention of deleted resources.
    pub(in crate::api) const MOST_SECONDS: i64 = 30 * 24 * 3600;
    const NONE: Self = Self(SignedDuration::ZERO);

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

/// A change of the key.
#[derive(Debug)]
pub(in crate::api) struct NewKey {
    /// `None`: a random one.
    pub(in crate::api) key: Option<PreSharedKey>,
    pub(in crate::api) grace: Grace,
    /// Ends the SAs of older keys.
    pub(in crate::api) cuts: bool,
}

pub(in crate::api) fn new_key(body: Map<String, Value>) -> Result<NewKey, ApiError> {
    let mut fields = Fields::new(body, KEY_PROPERTIES);
    let key = fields.text("preSharedKey");
    let cuts = fields.boolean("cut").unwrap_or(false);
    let grace: Option<Grace> = fields.integer("graceSeconds");
    if cuts && grace.is_some_and(|grace| grace != Grace::NONE) {
        fields.fault("graceSeconds", "must be 0 or left out with cut: an older key could connect again");
    }
    let grace = grace.unwrap_or(if cuts { Grace::NONE } else { Grace::default() });
    fields.finish(|| Some(NewKey { key, grace, cuts }))
}
