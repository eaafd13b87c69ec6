//! The named schemas. Those of resources are made from their tables of properties.

use crate::api::{
    health::RESULTS,
    locations,
    wire::{
        self, agent, answer::Representation, api_account, connection_change, environment, execution,
        frontdoor, metrics, property::Property, schema, share, status_detail, token_request, tunnel,
        vpn_config,
    },
};
use serde_json::{Map, Value, json};

/// All named schemas.
pub(super) fn all() -> Value {
    let mut all = Map::new();
    for (name, schema) in [
        (
            "Uuid",
            json!({"type": "string", "format": "uuid", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}),
        ),
        ("Links", links()),
        ("StatusDetail", status_detail::schema()),
        ("Connection", wire::connection::schema()),
        ("Tags", tags()),
        ("Error", error()),
        ("OAuthError", token_request::error_schema()),
        ("Token", token_request::token_schema()),
        ("TokenRequest", token_request::request_schema()),
        ("Metrics", metrics::schema()),
        ("VpnConfig", vpn_config::schema()),
        ("Readiness", readiness()),
        ("Check", wire::check::schema()),
        ("Nothing", json!({"type": "object", "additionalProperties": false})),
        ("Enrollment", agent::enrollment_schema()),
        ("NewApiAccount", new_api_account()),
        ("EnrollmentRequest", request(agent::ENROLLMENT_PROPERTIES)),
        ("PreSharedKeyRequest", request(tunnel::KEY_PROPERTIES)),
        ("IpsecShareRequest", request(share::PROPERTIES)),
        ("IpsecSharePatch", patch(share::PROPERTIES)),
        ("IpsecTunnelRequest", request(tunnel::PROPERTIES)),
        ("IpsecTunnelPatch", patch(tunnel::PROPERTIES)),
        ("FrontdoorRequest", request(frontdoor::PROPERTIES)),
        ("FrontdoorPatch", patch(frontdoor::PROPERTIES)),
        ("EnvironmentPatch", patch(environment::PROPERTIES)),
        ("ApiAccountRequest", request(api_account::PROPERTIES)),
    ] {
        all.insert(name.to_owned(), schema);
    }
    for (name, list, properties) in [
        listed::<share::Share>("IpsecShare", share::PROPERTIES),
        listed::<tunnel::Tunnel>("IpsecTunnel", tunnel::PROPERTIES),
        listed::<connection_change::ConnectionChange>("ConnectionChange", connection_change::PROPERTIES),
        listed::<environment::Environment>("Environment", environment::PROPERTIES),
        listed::<agent::Agent>("Agent", agent::PROPERTIES),
        listed::<frontdoor::Frontdoor>("Frontdoor", frontdoor::PROPERTIES),
        listed::<locations::Location>("Location", locations::PROPERTIES),
        listed::<execution::Execution<'_>>("Execution", execution::PROPERTIES),
        listed::<api_account::ApiAccount>("ApiAccount", api_account::PROPERTIES),
    ] {
        all.insert(name.to_owned(), resource(properties));
        all.insert(format!("{name}Page"), page(name));
        all.insert(format!("{name}PageHal"), page_hal(name, list));
    }
    Value::Object(all)
}

fn listed<T: Representation>(
    name: &'static str,
    properties: &'static [Property],
) -> (&'static str, &'static str, &'static [Property]) {
    (name, T::LIST, properties)
}

fn resource(properties: &[Property]) -> Value {
    let shown = || properties.iter().filter(|p| p.is_shown() && !p.is_nested());
    let schemas: Map<_, _> = shown().map(|p| (p.name.to_owned(), p.described())).collect();
    let required: Vec<_> = shown().filter(|p| p.is_always_shown()).map(|p| p.name).collect();
    json!({"type": "object", "properties": schemas, "required": required, "additionalProperties": false})
}

fn new_api_account() -> Value {
    let mut made = resource(api_account::PROPERTIES);
    made["properties"]["clientSecret"] = json!({"type": "string", "description": "Returned only once"});
    made
}

/// A body has writable properties, and read-only ones that a client sends back, which are ignored. A property that is
/// not required may be `null`, which counts as absent, and in a merge patch removes it.
fn request(properties: &[Property]) -> Value {
    let mut all = Map::new();
    for property in properties.iter().filter(|p| !p.is_nested()) {
        let schema = match property {
            p if p.is_required() => p.described(),
            p if p.is_writable() => or_null(&p.described()),
            _ => json!({"readOnly": true, "description": "Ignored"}),
        };
        all.insert(property.name.to_owned(), schema);
    }
    let required: Vec<_> = properties.iter().filter(|p| p.is_required()).map(|p| p.name).collect();
    json!({"type": "object", "properties": all, "required": required, "additionalProperties": false})
}

fn patch(properties: &[Property]) -> Value {
    let mut patch = request(properties);
    patch["required"] = json!([]);
    if patch["properties"].get("tags").is_some() {
        patch["properties"]["tags"] = or_null(&changed_tags());
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

fn page(name: &str) -> Value {
    let count = json!({"type": "integer", "minimum": 0});
    json!({
        "type": "object", "additionalProperties": false,
        "required": ["content", "pageable", "totalElements", "totalPages"],
        "properties": {
            "content": {"type": "array", "items": schema::reference(name)},
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
                "description": "Absent when empty",
                "properties": {list: {"type": "array", "items": schema::reference(name)}}},
            "_links": schema::reference("Links"),
            "page": {"type": "object", "additionalProperties": false,
                "required": ["size", "totalElements", "totalPages", "number"],
                "properties": {"size": count, "totalElements": count, "totalPages": count, "number": count}},
        },
    })
}

fn links() -> Value {
    json!({
        "type": "object", "description": "In application/hal+json",
        "additionalProperties": {"type": "object", "required": ["href"], "additionalProperties": false,
            "properties": {"href": schema::text("/frontdoor/v2/3d6d2b6e-6c7a-4a7f-8c3d-9a9d2e1f0b1c")}},
    })
}

fn tags() -> Value {
    json!({
        "type": "object", "maxProperties": 16, "example": {"team": "payments"},
        "propertyNames": {"pattern": "^[A-Za-z0-9_.-]{1,63}$"},
        "additionalProperties": schema::printable(0, 255, "payments"),
    })
}

/// In a merge patch, `null` removes a tag.
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
            "details": {"type": "array", "description": "One entry for each fault, if there are several",
                "items": {"type": "object", "additionalProperties": false, "required": ["property", "message"],
                    "properties": {"property": {"type": "string"}, "message": {"type": "string"}}}},
        },
    })
}

fn readiness() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["ready"],
        "properties": {
            "ready": {"type": "boolean"}, "esp": schema::text("kernel"), "reasons": {"type": "array", "items": {"type": "string"}},
            "tasks": {"type": "array", "description": "With `?verbose`: every background task that has run", "items": task_run()},
        },
    })
}

fn task_run() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["name", "lastRunAt", "durationMs", "result"],
        "properties": {
            "name": schema::text("reconciler"), "lastRunAt": schema::time("When the run started"), "durationMs": {"type": "number", "minimum": 0},
            "result": {"type": "string", "enum": RESULTS},
        },
    })
}
