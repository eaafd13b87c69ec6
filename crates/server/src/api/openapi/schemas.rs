//! The shapes of what is sent and answered. Closed lists come from the lists' descriptions, and what a request may
//! say from the resources' own [`Properties`].

mod agent;
mod api_account;
mod environment;
mod execution;
mod frontdoor;
mod metrics;
mod share;
mod text;
mod tunnel;

use crate::api::{
    health::RESULTS,
    wire::{self, fields::Properties},
};
use serde_json::{Map, Value, json};
use text::{location, text, time};
use wicketgate_store::{Listing, PropertyType, SHARES};

/// All named schemas.
pub(super) fn all() -> Value {
    let mut all = Map::new();
    for (name, schema) in [
        (
            "Uuid",
            json!({"type": "string", "format": "uuid", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}),
        ),
        ("Links", links()),
        ("StatusDetail", status_detail()),
        ("Connection", tunnel::connection()),
        ("Tags", tags()),
        ("Error", error()),
        ("OAuthError", api_account::oauth_error()),
        ("Token", api_account::token()),
        ("TokenRequest", api_account::token_request()),
        ("Metrics", metrics::metrics()),
        ("VpnConfig", tunnel::vpn_config()),
        ("Readiness", readiness()),
        ("Check", share::check()),
        ("Nothing", json!({"type": "object", "additionalProperties": false})),
        ("Enrollment", agent::enrollment()),
        ("PreSharedKeyRequest", tunnel::key_request()),
    ] {
        all.insert(name.to_owned(), schema);
    }
    for (name, list, properties, required) in [
        ("IpsecShare", "ipsecShareList", share::properties(), share::REQUIRED),
        ("IpsecTunnel", "ipsecTunnelList", tunnel::properties(), tunnel::REQUIRED),
        (
            "ConnectionChange",
            "connectionChangeList",
            tunnel::connection_change(),
            &["number", "at", "state"][..],
        ),
        ("Environment", "environmentList", environment::properties(), environment::REQUIRED),
        ("Agent", "agentList", agent::properties(), agent::REQUIRED),
        ("Frontdoor", "frontdoorList", frontdoor::properties(), frontdoor::REQUIRED),
        (
            "Location",
            "locationList",
            json!({"id": location(), "maxTunnels": {"type": "integer", "minimum": 1, "description":
                "How many tunnels its gateway can hold. One more is ERROR with GatewayFull, until there is room"}}),
            &["id"],
        ),
        ("Execution", "executionList", execution::properties(), execution::REQUIRED),
        ("ApiAccount", "apiAccountList", api_account::properties(), api_account::REQUIRED),
    ] {
        all.insert(name.to_owned(), resource(&properties, required));
        all.insert(format!("{name}Page"), page(name));
        all.insert(format!("{name}PageHal"), page_hal(name, list));
    }
    for (name, properties, known, required) in [
        (
            "IpsecShare",
            share::properties(),
            &wire::share::PROPERTIES,
            &["name", "ipsecTunnelId", "envZId", "target", "ingressPort"][..],
        ),
        (
            "IpsecTunnel",
            tunnel::properties(),
            &wire::tunnel::PROPERTIES,
            &["name", "locationId", "peerPublicIp", "peerCidr"],
        ),
        (
            "Frontdoor",
            frontdoor::properties(),
            &wire::frontdoor::PROPERTIES,
            &["organizationId", "defaultNamespaceName"],
        ),
        ("Environment", environment::properties(), &wire::environment::PROPERTIES, &["name"]),
        ("ApiAccount", api_account::properties(), &wire::api_account::PROPERTIES, &["name", "scopes"]),
        ("Enrollment", agent::properties(), &wire::agent::PROPERTIES, &[]),
    ] {
        let Properties { writable, read_only } = known;
        let whole = request(&properties, writable, read_only, required);
        let mut patch = whole.clone();
        patch["required"] = json!([]);
        if patch["properties"].get("tags").is_some() {
            patch["properties"]["tags"] = or_null(&changed_tags());
        }
        all.insert(format!("{name}Request"), whole);
        all.insert(format!("{name}Patch"), patch);
    }
    let mut made = resource(&api_account::properties(), api_account::REQUIRED);
    made["properties"]["clientSecret"] = json!({"type": "string", "description": "Shown this once"});
    all.insert("NewApiAccount".to_owned(), made);
    all.retain(|name, _| {
        !["EnrollmentPatch", "ApiAccountPatch", "EnvironmentRequest"].contains(&name.as_str())
    });
    Value::Object(all)
}

fn resource(properties: &Value, required: &[&str]) -> Value {
    let mut properties = properties.clone();
    if let Value::Object(properties) = &mut properties {
        properties.retain(|_, schema| schema.get("writeOnly").is_none());
        properties.insert("_links".to_owned(), reference("Links"));
    }
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// What a request may say: what is writable, and what a client has read and sends back, which is ignored. A property
/// that is not required may be `null`, which is as if it were left out, and in a merge patch takes it away.
fn request(properties: &Value, writable: &[&str], read_only: &[&str], required: &[&str]) -> Value {
    let mut all = Map::new();
    for name in writable {
        let property = properties.get(*name).cloned().unwrap_or_else(|| json!({}));
        let property = if required.contains(name) { property } else { or_null(&property) };
        all.insert((*name).to_owned(), property);
    }
    for name in read_only {
        all.insert((*name).to_owned(), json!({"readOnly": true, "description": "Ignored"}));
    }
    json!({"type": "object", "properties": all, "required": required, "additionalProperties": false})
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

fn page(name: &str) -> Value {
    let count = json!({"type": "integer", "minimum": 0});
    json!({
        "type": "object", "additionalProperties": false,
        "required": ["content", "pageable", "totalElements", "totalPages"],
        "properties": {
            "content": {"type": "array", "items": reference(name)},
            "pageable": {"type": "object", "additionalProperties": false, "required": ["pageNumber", "pageSize"],
                "properties": {"pageNumber": count, "pageSize": count}},
            "totalElements": count, "totalPages": count,
        },
    })
}

fn page_hal(name: &str, list: &str) -> Value {
    let count = json!({"type": "integer", "minimum": 0});
    json!({
        "type": "object", "additionalProperties": false, "required": ["_links", "page"],
        "properties": {
            "_embedded": {"type": "object", "additionalProperties": false, "required": [list],
                "description": "Left out when empty",
                "properties": {list: {"type": "array", "items": reference(name)}}},
            "_links": reference("Links"),
            "page": {"type": "object", "additionalProperties": false,
                "required": ["size", "totalElements", "totalPages", "number"],
                "properties": {"size": count, "totalElements": count, "totalPages": count, "number": count}},
        },
    })
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// One of the values that the list's property may have.
fn one_of(listing: &Listing, property: &str) -> Value {
    match listing.property(property).map(|p| p.kind) {
        Some(PropertyType::Enum(names)) => json!({"type": "string", "enum": names}),
        _ => json!({"type": "string"}),
    }
}

fn links() -> Value {
    json!({
        "type": "object", "description": "In application/hal+json",
        "additionalProperties": {"type": "object", "required": ["href"], "additionalProperties": false,
            "properties": {"href": text("/frontdoor/v2/3d6d2b6e-6c7a-4a7f-8c3d-9a9d2e1f0b1c")}},
    })
}

fn status_detail() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["reason", "message", "since"],
        "description": "Why the status is not DEPLOYED, or what impairs what is",
        "properties": {
            "reason": one_of(&SHARES, "statusDetail.reason"),
            "message": text("no agent of the environment is connected"),
            "since": time(""),
        },
    })
}

fn tags() -> Value {
    json!({
        "type": "object", "maxProperties": 16, "example": {"team": "payments"},
        "propertyNames": {"pattern": "^[A-Za-z0-9_.-]{1,63}$"},
        "additionalProperties": text::printable(0, 255, "payments"),
    })
}

/// In a merge patch: a tag that is `null` is taken away.
fn changed_tags() -> Value {
    let mut tags = tags();
    tags["additionalProperties"] = or_null(&tags["additionalProperties"]);
    tags
}

fn error() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["error", "message"],
        "properties": {
            "error": {"type": "string", "example": "invalid_request"},
            "message": {"type": "string", "example": "ingressPort must be between 1 and 65535"},
            "details": {"type": "array", "description": "One entry a fault, where there are several",
                "items": {"type": "object", "additionalProperties": false, "required": ["property", "message"],
                    "properties": {"property": {"type": "string"}, "message": {"type": "string"}}}},
        },
    })
}

fn readiness() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["ready"],
        "properties": {
            "ready": {"type": "boolean"}, "esp": text("kernel"), "reasons": {"type": "array", "items": {"type": "string"}},
            "tasks": {"type": "array", "description": "With `?verbose`: every background task that has run", "items": task_run()},
        },
    })
}

fn task_run() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["name", "lastRunAt", "durationMs", "result"],
        "properties": {
            "name": text("reconciler"), "lastRunAt": time("When it began"), "durationMs": {"type": "number", "minimum": 0},
            "result": {"type": "string", "enum": RESULTS},
        },
    })
}
