//! An IPsec share in JSON.

use super::{
    answer::Links,
    fields::{Fields, Properties, merge},
    standing::StatusDetail,
};
use crate::error::ApiError;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use wicketgate_model::{
    AllowedSources, EnvironmentId, FrontdoorId, IdleTimeout, IngressPort, LocationId, MaxConnections,
    ProxyProtocol, ResourceName, ShareId, ShareOptions, SourceCidr, Status, Target, TunnelId, ZId,
};
use wicketgate_store::{ShareRow, ShareSpec, Store, Tags};

pub(in crate::api) const PROPERTIES: Properties = Properties {
    writable: &[
        "name",
        "ipsecTunnelId",
        "envZId",
        "target",
        "ingressPort",
        "locationId",
        "allowedSources",
        "maxConnections",
        "idleTimeoutSeconds",
        "proxyProtocol",
        "tags",
    ],
    read_only: &[
        "id",
        "frontdoorId",
        "status",
        "statusDetail",
        "createdAt",
        "updatedAt",
        "deletedAt",
        "createdBy",
        "_links",
    ],
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Share {
    id: ShareId,
    name: ResourceName,
    frontdoor_id: FrontdoorId,
    ipsec_tunnel_id: TunnelId,
    env_z_id: ZId,
    target: Target,
    ingress_port: IngressPort,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_detail: Option<StatusDetail>,
    location_id: LocationId,
    #[serde(flatten)]
    options: ShareOptions,
    #[serde(skip_serializing_if = "Tags::is_empty")]
    tags: Tags,
    created_at: Timestamp,
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<Timestamp>,
    created_by: String,
}

impl Share {
    pub(in crate::api) fn of(row: ShareRow) -> Self {
        Self {
            status_detail: StatusDetail::of(&row.standing),
            id: row.id,
            name: row.name,
            frontdoor_id: row.frontdoor,
            ipsec_tunnel_id: row.tunnel,
            env_z_id: row.z_id,
            target: row.target,
            ingress_port: row.ingress_port,
            status: row.standing.status,
            location_id: row.location,
            options: row.options,
            tags: row.tags,
            created_at: row.created_at,
            updated_at: row.updated_at,
            deleted_at: row.deleted_at,
            created_by: row.created_by,
        }
    }

    pub(in crate::api) fn path(frontdoor: FrontdoorId, id: ShareId) -> String {
        format!("/frontdoor/v2/{frontdoor}/ipsec-shares/{id}")
    }

    pub(in crate::api) fn links(&self) -> Links {
        let own = Self::path(self.frontdoor_id, self.id);
        vec![
            ("metrics", format!("{own}/metrics")),
            ("self", own),
            ("ipsecTunnel", super::tunnel::Tunnel::path(self.frontdoor_id, self.ipsec_tunnel_id)),
        ]
    }
}

/// What a body of POST or PUT asks for. All its faults are found at once, those that take a look at other rows too.
pub(in crate::api) async fn spec(
    store: &Store,
    frontdoor: FrontdoorId,
    mut body: Map<String, Value>,
) -> Result<ShareSpec, ApiError> {
    let contradiction = one_environment(&mut body);
    let mut fields = Fields::new(body, &PROPERTIES);
    if contradiction {
        fields.fault("envId", "must be the same as envZId, or left out");
    }
    let name = fields.required::<ResourceName>("name");
    let target = fields.required::<Target>("target");
    let ingress_port = fields.required_integer::<IngressPort>("ingressPort");
    let options = options(&mut fields);
    let tags = fields.tags();
    let location = fields.optional::<LocationId>("locationId");
    let tunnel = match fields.required::<TunnelId>("ipsecTunnelId") {
        Some(id) => {
            let row = store.tunnel(frontdoor, id).await?.filter(|t| t.standing.status.is_live());
            if row.is_none() {
                fields.fault("ipsecTunnelId", "must be the id of a live tunnel of this Frontdoor");
            }
            row
        }
        None => None,
    };
    if let (Some(location), Some(tunnel)) = (location, &tunnel)
        && location != tunnel.location
    {
        fields.fault("locationId", format!("must be the tunnel's location, {}", tunnel.location));
    }
    if let (Some(sources), Some(tunnel)) = (&options.allowed_sources, &tunnel) {
        for net in sources.networks().iter().filter(|net| !net.is_within(tunnel.peer_cidr)) {
            fields.fault(
                "allowedSources",
                format!("must be within the tunnel's peerCidr, {}: {net} is not", tunnel.peer_cidr),
            );
        }
    }
    let environment: Option<EnvironmentId> = match fields.required::<ZId>("envZId") {
        Some(z_id) => {
            let row = store.environment_by_z_id(frontdoor, &z_id).await?;
            if row.is_none() {
                fields.fault("envZId", "must be the zId of an environment of this Frontdoor");
            }
            row.map(|e| e.id)
        }
        None => None,
    };
    let made = || {
        Some(ShareSpec {
            tunnel: tunnel?.id,
            environment: environment?,
            name: name?,
            target: target?,
            ingress_port: ingress_port?,
            options,
            tags,
        })
    };
    let made = made();
    fields.finish(made)
}

/// What a body of PATCH makes of the share as it is: what a PUT would have to say.
pub(in crate::api) fn patched(row: &ShareRow, mut patch: Map<String, Value>) -> Map<String, Value> {
    let contradiction = patch.get("envId").is_some_and(|v| !v.is_null()) && patch.contains_key("envZId");
    if !contradiction {
        one_environment(&mut patch);
    }
    let mut whole = Map::new();
    for (name, value) in [
        ("name", json!(row.name)),
        ("ipsecTunnelId", json!(row.tunnel)),
        ("envZId", json!(row.z_id)),
        ("target", json!(row.target)),
        ("ingressPort", json!(row.ingress_port)),
        ("tags", json!(row.tags)),
    ] {
        whole.insert(name.to_owned(), value);
    }
    if let Ok(Value::Object(options)) = serde_json::to_value(&row.options) {
        whole.extend(options);
    }
    merge(&mut whole, patch);
    whole
}

fn options(fields: &mut Fields) -> ShareOptions {
    ShareOptions {
        allowed_sources: fields.optional_list::<SourceCidr, AllowedSources>("allowedSources"),
        max_connections: fields.optional_integer::<MaxConnections>("maxConnections"),
        idle_timeout_seconds: fields.optional_integer::<IdleTimeout>("idleTimeoutSeconds"),
        proxy_protocol: fields.optional::<ProxyProtocol>("proxyProtocol"),
    }
}

/// `envId` is another name of `envZId`. Answers whether both are there and say different things.
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
