//! The schemas of resources, made from their tables of properties.

use crate::api::{
    locations, unknown_agents, unknown_peers,
    wire::{
        agent, answer::Representation, api_account, closing, connection_change, enrollment_code, environment,
        execution, frontdoor, gateway, handover_link, join_token, property::Property, reset, schema, session,
        share, site, tunnel,
    },
};
use serde_json::{Map, Value, json};
use wicketgate_model::QuotaKind;

/// The schemas of a page of resources, in plain JSON and in HAL.
const PAGE: &str = include_str!("page.json");

/// Bodies, with the properties that they may have.
const REQUESTS: &[(&str, &[Property])] = &[
    ("EnrollmentRequest", agent::ENROLLMENT_PROPERTIES),
    ("JoinTokenRequest", join_token::REQUEST_PROPERTIES),
    ("PreSharedKeyRequest", tunnel::KEY_PROPERTIES),
    ("CloseConnectionsRequest", closing::PROPERTIES),
    ("ConfirmRemovalRequest", gateway::CONFIRMATION),
    ("ResetRequest", reset::PROPERTIES),
    ("SessionRequest", session::REQUEST_PROPERTIES),
    ("IpsecShareRequest", share::PROPERTIES),
    ("IpsecTunnelRequest", tunnel::PROPERTIES),
    ("FrontdoorRequest", frontdoor::PROPERTIES),
    ("ApiAccountRequest", api_account::PROPERTIES),
    ("HandoverLinkRequest", handover_link::PROPERTIES),
    ("SiteOpenRequest", site::OPENING),
    ("SiteSessionRequest", site::SESSION_ONLY),
    ("SiteConfigurationRequest", site::CONFIGURATION),
    ("SiteCheckRequest", site::CHECK),
];

/// Adds the schemas that follow from tables of properties to those of `base.json`.
pub(super) fn add_resources(all: &mut Value) {
    let tags = all["Tags"].clone();
    for (name, properties) in REQUESTS {
        all[*name] = request(properties);
    }
    all["JoinTokenRequest"]["oneOf"] =
        json!([only("locationId", "gatewayId"), only("gatewayId", "locationId")]);
    for (name, properties) in [
        ("IpsecSharePatch", share::PROPERTIES),
        ("IpsecTunnelPatch", tunnel::PROPERTIES),
        ("FrontdoorPatch", frontdoor::PROPERTIES),
        ("EnvironmentPatch", environment::PROPERTIES),
        ("AgentPatch", agent::PROPERTIES),
        ("GatewayPatch", gateway::PROPERTIES),
    ] {
        all[name] = patch(properties, &tags);
    }
    for (name, list, properties) in [
        listed::<share::Share>("IpsecShare", share::PROPERTIES),
        listed::<tunnel::Tunnel>("IpsecTunnel", tunnel::PROPERTIES),
        listed::<connection_change::ConnectionChange>("ConnectionChange", connection_change::PROPERTIES),
        listed::<environment::Environment>("Environment", environment::PROPERTIES),
        listed::<agent::Agent>("Agent", agent::PROPERTIES),
        listed::<frontdoor::Frontdoor>("Frontdoor", frontdoor::PROPERTIES),
        listed::<locations::Location>("Location", locations::PROPERTIES),
        listed::<unknown_peers::UnknownAddress>("UnknownPeer", unknown_peers::PROPERTIES),
        listed::<unknown_agents::Stranger>("UnknownAgent", unknown_agents::PROPERTIES),
        listed::<execution::Execution<'_>>("Execution", execution::PROPERTIES),
        listed::<api_account::ApiAccount>("ApiAccount", api_account::PROPERTIES),
        listed::<enrollment_code::EnrollmentCode>("EnrollmentCode", enrollment_code::PROPERTIES),
        listed::<gateway::Gateway>("Gateway", gateway::PROPERTIES),
        listed::<join_token::ListedJoinToken>("JoinToken", join_token::PROPERTIES),
        listed::<handover_link::HandoverLink>("HandoverLink", handover_link::PROPERTIES),
    ] {
        let page = PAGE.replace("<Resource>", name).replace("<resourceList>", list);
        let page = schema::filled(&page);
        all[format!("{name}Page")] = page["json"].clone();
        all[format!("{name}PageHal")] = page["hal"].clone();
        all[name] = resource(properties);
    }
    add_quotas(all);
    let secret = json!({"type": "string", "description": "Returned only once"});
    all["NewApiAccount"] = all["ApiAccount"].clone();
    all["NewApiAccount"]["properties"]["clientSecret"] = secret;
    all["NewHandoverLink"] = all["HandoverLink"].clone();
    for (name, about) in [("token", "linkToken"), ("url", "siteUrl")] {
        all["NewHandoverLink"]["properties"][name] = schema::value(about).unwrap_or_default();
        if let Some(required) = all["NewHandoverLink"]["required"].as_array_mut() {
            required.push(name.into());
        }
    }
}

/// A body with this property, and without the other one.
fn only(property: &str, other: &str) -> Value {
    json!({
        "required": [property],
        "properties": {property: {"type": "string"}, other: {"type": "null"}},
    })
}

/// What a Frontdoor shows of its quotas, and what a request sets.
fn add_quotas(all: &mut Value) {
    let parts = json!({"limit": schema::value("quotaLimit"), "used": schema::value("quotaUsed")});
    let quota = |required: &[&str]| json!({"type": "object", "properties": parts, "required": required, "additionalProperties": false});
    all["Quota"] = quota(&["limit", "used"]);
    all["Quotas"] = by_kind(|_| schema::reference("Quota"));
    all["Quotas"]["required"] = QuotaKind::of_frontdoor().map(frontdoor::quota_name).collect();
    let (limit, shown) = (schema::value("quotaLimit").unwrap_or_default(), quota(&["limit"]));
    all["QuotaLimits"] = by_kind(|kind| {
        let mut limit = limit.clone();
        limit["description"] = json!(kind.meaning().trim_end_matches('.'));
        json!({"anyOf": [limit, shown, {"type": "null"}]})
    });
}

/// An object with a property for each kind that a Frontdoor has a quota of.
fn by_kind(schema: impl Fn(QuotaKind) -> Value) -> Value {
    let of_kind = |kind| (frontdoor::quota_name(kind).to_owned(), schema(kind));
    let all: Map<_, _> = QuotaKind::of_frontdoor().map(of_kind).collect();
    json!({"type": "object", "properties": all, "additionalProperties": false})
}

fn listed<T: Representation>(
    name: &'static str,
    properties: &'static [Property],
) -> (&'static str, &'static str, &'static [Property]) {
    (name, T::LIST, properties)
}

fn resource(properties: &[Property]) -> Value {
    let shown = || properties.iter().filter(|p| p.is_shown() && !p.is_nested());
    let schemas: Map<_, _> = shown().map(|p| (p.name.to_owned(), p.schema())).collect();
    let required: Vec<_> = shown().filter(|p| p.is_always_shown()).map(|p| p.name).collect();
    json!({"type": "object", "properties": schemas, "required": required, "additionalProperties": false})
}

/// A body has writable properties, and read-only ones that a client sends back, which are ignored. A property that is
/// not required may be `null`, which counts as absent, and in a merge patch removes it.
fn request(properties: &[Property]) -> Value {
    let mut all = Map::new();
    for property in properties.iter().filter(|p| !p.is_nested()) {
        let schema = match property {
            p if p.is_required() => p.schema(),
            p if p.is_writable() => or_null(&p.schema()),
            _ => json!({"readOnly": true, "description": "Ignored"}),
        };
        all.insert(property.name.to_owned(), schema);
    }
    let required: Vec<_> = properties.iter().filter(|p| p.is_required()).map(|p| p.name).collect();
    json!({"type": "object", "properties": all, "required": required, "additionalProperties": false})
}

/// In a merge patch, `null` also removes a tag.
fn patch(properties: &[Property], tags: &Value) -> Value {
    let mut patch = request(properties);
    patch["required"] = json!([]);
    if patch["properties"].get("tags").is_some() {
        let mut tags = tags.clone();
        tags["additionalProperties"] = or_null(&tags["additionalProperties"]);
        patch["properties"]["tags"] = or_null(&tags);
    }
    patch
}

fn or_null(schema: &Value) -> Value {
    let mut schema = schema.clone();
    let Some(kind) = schema.get("type").cloned() else {
        return json!({"anyOf": [schema, {"type": "null"}]});
    };
    schema["type"] = json!([kind, "null"]);
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.push(Value::Null);
    }
    schema
}
