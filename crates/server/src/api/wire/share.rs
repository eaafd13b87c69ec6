//! An IPsec share in JSON.

use super::{
    answer::{Links, Representation},
    fields::{Fields, patched},
    property::{
        LINKS, Property,
        PropertyType::{Boolean, Enum, Id, Integer, List, Network, Object, Tags as TagMap, Text, Time},
    },
    status_detail::StatusDetail,
};
use crate::{error::ApiError, gateways::NotServed, state::now};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use wicketgate_model::{
    AllowedSources, Description, EnvironmentId, EnvironmentKey, FrontdoorId, HealthCheck, HealthCheckType,
    IngressPort, LocationId, Reason, ResourceName, ShareId, ShareOptions, SourceCidr, Status, Target,
    TunnelId, ZId,
};
use wicketgate_store::{ShareRow, ShareSpec, Tags, TunnelRow, column::share as column};

pub(in crate::api) static PROPERTIES: &[Property] = &[
    Property::new("id", Id("shr-")).column(&column::ID),
    Property::new("name", Text).column(&column::NAME).required(),
    Property::new("description", Text).column(&column::DESCRIPTION).writable(),
    Property::new("frontdoorId", Id("")).column(&column::FRONTDOOR),
    Property::new("ipsecTunnelId", Id("tnl-")).column(&column::TUNNEL).required(),
    Property::new("envZId", Text).column(&column::Z_ID).required(),
    Property::new("target", Text).column(&column::TARGET).required(),
    Property::new("ingressPort", Integer).column(&column::INGRESS_PORT).required(),
    Property::new("status", Enum(Status::NAMES)).column(&column::STATUS),
    Property::new("statusDetail", Object).optional(),
    Property::new("statusDetail.reason", Enum(Reason::NAMES)).column(&column::DETAIL_REASON),
    Property::new("statusDetail.message", Text).column(&column::DETAIL_MESSAGE),
    Property::new("statusDetail.since", Time).column(&column::DETAIL_SINCE),
    Property::new("ready", Boolean).column(&column::READY),
    Property::new("enabled", Boolean).column(&column::ENABLED).writable(),
    Property::new("expiresAt", Time).column(&column::EXPIRES_AT).writable().described_as("shareExpiresAt"),
    Property::new("locationId", Text).column(&column::LOCATION).writable(),
    Property::new("proxyProtocol", Enum(&["v2"])).column(&column::PROXY_PROTOCOL).writable(),
    Property::new("allowedSources", List(&Network)).column(&column::ALLOWED_SOURCES).writable(),
    Property::new("maxConnections", Integer).column(&column::MAX_CONNECTIONS).writable(),
    Property::new("idleTimeoutSeconds", Integer).column(&column::IDLE_TIMEOUT_SECONDS).writable(),
    Property::new("healthCheck", Object).writable().optional(),
    Property::new("healthCheck.type", Enum(HealthCheckType::NAMES)).column(&column::HEALTH_CHECK),
    Property::new("healthCheck.intervalSeconds", Integer).column(&column::PROBE_INTERVAL),
    Property::new("closeWhenUnserved", Boolean).column(&column::CLOSE_WHEN_UNSERVED).writable(),
    Property::new("tags", TagMap).column(&column::TAGS).writable().optional(),
    Property::new("createdAt", Time).column(&column::CREATED_AT),
    Property::new("updatedAt", Time).column(&column::UPDATED_AT),
    Property::new("deletedAt", Time).column(&column::DELETED_AT),
    Property::new("createdBy", Text).column(&column::CREATED_BY),
    Property::new("deletedBy", Text).column(&column::DELETED_BY),
    LINKS,
];

/// The parts of `healthCheck` in a body.
static HEALTH_CHECK: &[Property] = &[
    Property::new("type", Enum(HealthCheckType::NAMES)).required(),
    Property::new("intervalSeconds", Integer).writable(),
];

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Share {
    id: ShareId,
    name: ResourceName,
    description: Option<Description>,
    frontdoor_id: FrontdoorId,
    ipsec_tunnel_id: TunnelId,
    env_z_id: ZId,
    target: Target,
    ingress_port: IngressPort,
    status: Status,
    status_detail: Option<StatusDetail>,
    ready: bool,
    enabled: bool,
    expires_at: Option<Timestamp>,
    location_id: LocationId,
    #[serde(flatten)]
    options: ShareOptions,
    #[serde(skip_serializing_if = "Tags::is_empty")]
    tags: Tags,
    created_at: Timestamp,
    updated_at: Timestamp,
    deleted_at: Option<Timestamp>,
    created_by: String,
    deleted_by: Option<String>,
}

impl Share {
    /// With the counts of its problem.
    pub(in crate::api) fn counted(row: ShareRow, counts: Option<NotServed>) -> Self {
        let it = Self::of(row);
        let status_detail = it.status_detail.map(|detail| match counts {
            Some(counts) => detail.counted(counts),
            None => detail,
        });
        Self { status_detail, ..it }
    }

    pub(in crate::api) fn of(row: ShareRow) -> Self {
        let spec = row.spec;
        Self {
            status_detail: StatusDetail::of(&row.standing),
            ready: row.standing.serves(),
            enabled: spec.enabled,
            expires_at: spec.expires_at,
            id: row.id,
            name: spec.name,
            description: spec.description,
            frontdoor_id: row.frontdoor,
            ipsec_tunnel_id: spec.tunnel,
            env_z_id: row.z_id,
            target: spec.target,
            ingress_port: spec.ingress_port,
            status: row.standing.status,
            location_id: row.location,
            options: spec.options,
            tags: spec.tags,
            created_at: row.created_at,
            updated_at: row.updated_at,
            deleted_at: row.deleted_at,
            created_by: row.created_by,
            deleted_by: row.deleted_by,
        }
    }

    pub(in crate::api) fn path(frontdoor: FrontdoorId, id: ShareId) -> String {
        format!("/frontdoor/v2/{frontdoor}/ipsec-shares/{id}")
    }
}

impl Representation for Share {
    const LIST: &'static str = "ipsecShareList";

    fn links(&self) -> Links {
        let own = Self::path(self.frontdoor_id, self.id);
        vec![
            ("metrics", format!("{own}/metrics")),
            ("self", own),
            ("ipsecTunnel", super::tunnel::Tunnel::path(self.frontdoor_id, self.ipsec_tunnel_id)),
        ]
    }
}

/// A share as a body of POST or PUT has it. What it refers to is looked up by the caller and passed to
/// [`ShareRequest::resolve`], which reports all faults at once.
#[derive(Debug)]
pub(in crate::api) struct ShareRequest {
    pub(in crate::api) tunnel: Option<TunnelId>,
    pub(in crate::api) environment: Option<EnvironmentKey>,
    name: Option<ResourceName>,
    description: Option<Description>,
    target: Option<Target>,
    ingress_port: Option<IngressPort>,
    location: Option<LocationId>,
    enabled: bool,
    expires_at: Option<Timestamp>,
    options: ShareOptions,
    tags: Tags,
    fields: Fields,
}

impl ShareRequest {
    /// The time of `old`, the share to be replaced, may have passed: a body that was read is accepted.
    pub(in crate::api) fn parse(mut body: Map<String, Value>, old: Option<&ShareRow>) -> Self {
        let contradiction = one_environment(&mut body);
        let mut fields = Fields::new(body, PROPERTIES);
        if contradiction {
            fields.fault("envId", "must be the same as envZId, or left out");
        }
        let expires_at = fields.time("expiresAt");
        let is_kept = old.is_some_and(|old| old.spec.expires_at == expires_at);
        if !is_kept && expires_at.is_some_and(|end| end <= now()) {
            fields.fault("expiresAt", "must be in the future");
        }
        Self {
            expires_at,
            name: fields.text("name"),
            description: fields.text("description"),
            target: fields.text("target"),
            ingress_port: fields.integer("ingressPort"),
            enabled: fields.boolean("enabled").unwrap_or(true),
            options: ShareOptions {
                allowed_sources: fields.list::<SourceCidr, _>("allowedSources", AllowedSources::try_from),
                max_connections: fields.integer("maxConnections"),
                idle_timeout_seconds: fields.integer("idleTimeoutSeconds"),
                proxy_protocol: fields.text("proxyProtocol"),
                health_check: fields.nested("healthCheck", HEALTH_CHECK, |check| {
                    let (r#type, interval_seconds) = (check.text("type"), check.integer("intervalSeconds"));
                    Some(HealthCheck { r#type: r#type?, interval_seconds })
                }),
                close_when_unserved: fields.boolean("closeWhenUnserved").unwrap_or(false),
            },
            tags: fields.tags(),
            location: fields.text("locationId"),
            tunnel: fields.text("ipsecTunnelId"),
            environment: fields.text("envZId"),
            fields,
        }
    }

    /// `tunnel` and `environment` are those of the Frontdoor that the request names, if they exist.
    pub(in crate::api) fn resolve(
        self,
        tunnel: Option<&TunnelRow>,
        environment: Option<EnvironmentId>,
    ) -> Result<ShareSpec, ApiError> {
        let Self {
            name,
            description,
            target,
            ingress_port,
            enabled,
            expires_at,
            options,
            tags,
            mut fields,
            ..
        } = self;
        let tunnel = tunnel.filter(|t| t.standing.status.is_live());
        if self.tunnel.is_some() && tunnel.is_none() {
            fields.fault("ipsecTunnelId", "must be the id of an existing tunnel of this Frontdoor");
        }
        if let (Some(location), Some(tunnel)) = (self.location, tunnel)
            && location != tunnel.spec.location
        {
            fields.fault("locationId", format!("must be the tunnel's location, {}", tunnel.spec.location));
        }
        if let (Some(sources), Some(tunnel)) = (&options.allowed_sources, tunnel) {
            for net in sources.networks().iter().filter(|net| !net.is_within(tunnel.spec.peer_cidr)) {
                let rule =
                    format!("must be within the tunnel's peerCidr, {}: {net} is not", tunnel.spec.peer_cidr);
                fields.fault("allowedSources", rule);
            }
        }
        if options.close_when_unserved && options.health_check.is_some_and(|check| check.interval().is_none())
        {
            fields.fault(
                "closeWhenUnserved",
                "must be false while healthCheck.type is none: without probes, nothing would open the port again",
            );
        }
        if self.environment.is_some() && environment.is_none() {
            fields.fault("envZId", "must be the zId or id of an existing environment of this Frontdoor");
        }
        fields.finish(|| {
            Some(ShareSpec {
                tunnel: tunnel?.id,
                environment: environment?,
                name: name?,
                description,
                target: target?,
                ingress_port: ingress_port?,
                enabled,
                expires_at,
                options,
                tags,
            })
        })
    }
}

/// The body of PUT that a merge patch of the share stands for. The location follows the tunnel.
pub(in crate::api) fn merged(row: &ShareRow, mut patch: Map<String, Value>) -> Map<String, Value> {
    let contradiction = patch.get("envId").is_some_and(|v| !v.is_null()) && patch.contains_key("envZId");
    if !contradiction {
        one_environment(&mut patch);
    }
    patch.entry("locationId").or_insert(Value::Null);
    patched(&Share::of(row.clone()), PROPERTIES, patch)
}

/// Renames `envId` to `envZId`. Returns whether both are present and differ.
fn one_environment(body: &mut Map<String, Value>) -> bool {
    let Some(alias) = body.remove("envId") else { return false };
    match body.get("envZId") {
        Some(value) => !alias.is_null() && *value != alias,
        None => {
            body.insert("envZId".to_owned(), alias);
            false
        }
    }
}
