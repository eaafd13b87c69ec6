//! The shapes of what is sent and answered. Closed lists come from the lists' descriptions, and what a request may
//! say from the resources' own [`Properties`].

use crate::api::wire::{agent, api_account, environment, fields::Properties, frontdoor, share, tunnel};
use serde_json::{Map, Value, json};
use wicketgate_store::{AGENTS, ENVIRONMENTS, EXECUTIONS, Listing, PropertyType, SHARES, TUNNELS};

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
        ("Connection", connection()),
        ("Tags", tags()),
        ("Error", error()),
        ("OAuthError", oauth_error()),
        ("Token", token()),
        ("TokenRequest", token_request()),
        ("Metrics", metrics()),
        ("VpnConfig", vpn_config()),
        ("Readiness", readiness()),
        ("Check", check()),
        ("Nothing", json!({"type": "object", "additionalProperties": false})),
        ("Enrollment", enrollment()),
        ("PreSharedKeyRequest", request(&tunnel_properties(), &["preSharedKey"], &[], &[])),
    ] {
        all.insert(name.to_owned(), schema);
    }
    for (name, list, properties, required) in [
        ("IpsecShare", "ipsecShareList", share_properties(), SHARE),
        ("IpsecTunnel", "ipsecTunnelList", tunnel_properties(), TUNNEL),
        ("Environment", "environmentList", environment_properties(), ENVIRONMENT),
        ("Agent", "agentList", agent_properties(), AGENT),
        ("Frontdoor", "frontdoorList", frontdoor_properties(), FRONTDOOR),
        ("Location", "locationList", json!({"id": {"type": "string", "example": "us-east-1"}}), &["id"]),
        ("Execution", "executionList", execution_properties(), EXECUTION),
        ("ApiAccount", "apiAccountList", account_properties(), ACCOUNT),
    ] {
        all.insert(name.to_owned(), resource(&properties, required));
        all.insert(format!("{name}Page"), page(name));
        all.insert(format!("{name}PageHal"), page_hal(name, list));
    }
    for (name, properties, known, required) in [
        (
            "IpsecShare",
            share_properties(),
            &share::PROPERTIES,
            &["name", "ipsecTunnelId", "envZId", "target", "ingressPort"][..],
        ),
        (
            "IpsecTunnel",
            tunnel_properties(),
            &tunnel::PROPERTIES,
            &["name", "locationId", "peerPublicIp", "peerCidr"],
        ),
        (
            "Frontdoor",
            frontdoor_properties(),
            &frontdoor::PROPERTIES,
            &["organizationId", "defaultNamespaceName"],
        ),
        ("Environment", environment_properties(), &environment::PROPERTIES, &["name"]),
        ("ApiAccount", account_properties(), &api_account::PROPERTIES, &["name", "scopes"]),
        ("Enrollment", agent_properties(), &agent::PROPERTIES, &[]),
    ] {
        let Properties { writable, read_only } = known;
        all.insert(format!("{name}Request"), request(&properties, writable, read_only, required));
        all.insert(format!("{name}Patch"), request(&properties, writable, read_only, &[]));
    }
    let mut made = resource(&account_properties(), ACCOUNT);
    made["properties"]["clientSecret"] = json!({"type": "string", "description": "Shown this once"});
    all.insert("NewApiAccount".to_owned(), made);
    all.retain(|name, _| {
        !["EnrollmentPatch", "ApiAccountPatch", "EnvironmentRequest"].contains(&name.as_str())
    });
    Value::Object(all)
}

const SHARE: &[&str] = &[
    "id",
    "name",
    "frontdoorId",
    "ipsecTunnelId",
    "envZId",
    "target",
    "ingressPort",
    "status",
    "locationId",
    "createdAt",
    "updatedAt",
    "createdBy",
];
const TUNNEL: &[&str] = &[
    "id",
    "name",
    "frontdoorId",
    "locationId",
    "status",
    "peerPublicIp",
    "peerCidr",
    "peerId",
    "loadBalancerIp",
    "connection",
    "createdAt",
    "updatedAt",
    "createdBy",
];
const ENVIRONMENT: &[&str] =
    &["id", "zId", "frontdoorId", "name", "status", "agents", "createdAt", "updatedAt"];
const AGENT: &[&str] = &["id", "frontdoorId", "environmentId", "envZId", "name", "status", "createdAt"];
const FRONTDOOR: &[&str] = &[
    "id",
    "organizationId",
    "defaultNamespaceName",
    "ipsecSharesEnabled",
    "createdAt",
    "updatedAt",
    "createdBy",
];
const EXECUTION: &[&str] = &[
    "id",
    "processId",
    "frontdoorId",
    "actor",
    "action",
    "resourceType",
    "resourceId",
    "status",
    "createdAt",
];
const ACCOUNT: &[&str] = &["clientId", "name", "organizationId", "scopes", "createdAt", "createdBy"];

fn resource(properties: &Value, required: &[&str]) -> Value {
    let mut properties = properties.clone();
    if let Value::Object(properties) = &mut properties {
        properties.retain(|_, schema| schema.get("writeOnly").is_none());
        properties.insert("_links".to_owned(), reference("Links"));
    }
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

/// What a request may say: what is writable, and what a client has read and sends back, which is ignored.
fn request(properties: &Value, writable: &[&str], read_only: &[&str], required: &[&str]) -> Value {
    let mut all = Map::new();
    for name in writable {
        all.insert((*name).to_owned(), properties.get(*name).cloned().unwrap_or_else(|| json!({})));
    }
    for name in read_only {
        all.insert((*name).to_owned(), json!({"readOnly": true, "description": "Ignored"}));
    }
    json!({"type": "object", "properties": all, "required": required, "additionalProperties": false})
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

fn text(example: &str) -> Value {
    json!({"type": "string", "example": example})
}

fn id(prefix: &str) -> Value {
    json!({"type": "string", "pattern": format!("^{prefix}[0-9a-f]{{32}}$"),
        "example": format!("{prefix}0190f3a4c0de7000800000000000abcd")})
}

fn time(description: &str) -> Value {
    json!({"type": "string", "format": "date-time", "description": description, "example": "2038-11-05T09:00:00Z"})
}

fn name() -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$", "example": "app-db"})
}

fn share_properties() -> Value {
    json!({
        "id": id("shr-"),
        "name": name(),
        "frontdoorId": reference("Uuid"),
        "ipsecTunnelId": id("tnl-"),
        "envZId": {"type": "string", "pattern": "^[A-Za-z0-9-]{10}$", "example": "ijcrWb-ZOq",
            "description": "In requests also `envId`"},
        "envId": {"type": "string", "writeOnly": true, "description": "Another name of `envZId`"},
        "target": {"type": "string", "example": "10.20.100.1:8443",
            "description": "`host:port`, where the host is an IPv4 address, a bracketed IPv6 address or a DNS name; `tcp://` is taken off"},
        "ingressPort": {"type": "integer", "minimum": 1, "maximum": 65535, "example": 8443},
        "status": one_of(&SHARES, "status"),
        "statusDetail": reference("StatusDetail"),
        "locationId": text("us-east-1"),
        "allowedSources": {"type": "array", "minItems": 1, "maxItems": 64, "items": text("172.31.8.0/24"),
            "description": "Networks of the remote site that may come; all of it if left out"},
        "maxConnections": {"type": "integer", "minimum": 1, "maximum": 1_000_000},
        "idleTimeoutSeconds": {"type": "integer", "minimum": 1, "maximum": 604_800},
        "proxyProtocol": one_of(&SHARES, "proxyProtocol"),
        "tags": reference("Tags"),
        "createdAt": time(""),
        "updatedAt": time(""),
        "deletedAt": time("It stays readable for 30 days"),
        "createdBy": text("admin"),
    })
}

fn tunnel_properties() -> Value {
    json!({
        "id": id("tnl-"),
        "name": name(),
        "frontdoorId": reference("Uuid"),
        "locationId": text("us-east-1"),
        "status": one_of(&TUNNELS, "status"),
        "statusDetail": reference("StatusDetail"),
        "peerPublicIp": {"type": "string", "format": "ipv4", "example": "203.0.113.1"},
        "peerCidr": text("172.31.0.0/16"),
        "peerId": {"type": "string", "example": "203.0.113.1", "description": "The IKE identity; `peerPublicIp` if left out"},
        "preSharedKey": {"type": "string", "writeOnly": true, "minLength": 20, "maxLength": 128,
            "description": "Printable ASCII; 256 random bits if left out"},
        "loadBalancerIp": {"type": "string", "format": "ipv4", "description": "What the remote site connects to"},
        "gatewayPublicIp": {"type": "string", "format": "ipv4"},
        "connection": reference("Connection"),
        "tags": reference("Tags"),
        "createdAt": time(""),
        "updatedAt": time(""),
        "deletedAt": time("It stays readable for 30 days"),
        "createdBy": text("admin"),
    })
}

fn environment_properties() -> Value {
    json!({
        "id": id("env-"),
        "zId": text("ijcrWb-ZOq"),
        "frontdoorId": reference("Uuid"),
        "name": name(),
        "status": one_of(&ENVIRONMENTS, "status"),
        "agents": {"type": "array", "items": reference("Agent")},
        "createdAt": time(""),
        "updatedAt": time(""),
    })
}

fn agent_properties() -> Value {
    json!({
        "id": id("agt-"),
        "frontdoorId": reference("Uuid"),
        "environmentId": id("env-"),
        "envZId": text("ijcrWb-ZOq"),
        "name": text("dc-1.example.org"),
        "status": one_of(&AGENTS, "status"),
        "version": text("0.1.0"),
        "address": text("192.0.2.9"),
        "connectedSince": time(""),
        "createdAt": time(""),
    })
}

fn frontdoor_properties() -> Value {
    json!({
        "id": reference("Uuid"),
        "organizationId": {"type": "string", "pattern": "^[!-~]{1,128}$", "example": "default"},
        "defaultNamespaceName": {"type": "string", "pattern": "^[a-z]([a-z0-9-]*[a-z0-9])?$", "maxLength": 63, "example": "default"},
        "ipsecSharesEnabled": {"type": "boolean", "description": "Set with the scope frontdoor.admin only"},
        "createdAt": time(""),
        "updatedAt": time(""),
        "createdBy": text("admin"),
    })
}

fn execution_properties() -> Value {
    json!({
        "id": id("exe-"),
        "processId": id("exe-"),
        "frontdoorId": reference("Uuid"),
        "actor": text("admin"),
        "action": one_of(&EXECUTIONS, "action"),
        "resourceType": one_of(&EXECUTIONS, "resourceType"),
        "resourceId": text("shr-0190f3a4c0de7000800000000000abcd"),
        "status": one_of(&EXECUTIONS, "status"),
        "message": {"type": "string", "description": "Why it failed"},
        "createdAt": time(""),
        "finishedAt": time(""),
    })
}

fn account_properties() -> Value {
    json!({
        "clientId": id("acc-"),
        "name": {"type": "string", "minLength": 1, "maxLength": 63, "example": "deploy"},
        "organizationId": text("default"),
        "scopes": {"type": "array", "minItems": 1,
            "items": {"type": "string", "enum": ["frontdoor.read", "frontdoor.write", "frontdoor.admin"]}},
        "frontdoorIds": {"type": "array", "minItems": 1, "maxItems": 100, "items": reference("Uuid"),
            "description": "Left out, it reaches all of its organization's"},
        "expiresAt": time("Never, if left out"),
        "createdAt": time(""),
        "createdBy": text("admin"),
    })
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

fn connection() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["state", "since", "bytesIn", "bytesOut"],
        "description": "What the gateway's IKE daemon says of the peer",
        "properties": {
            "state": one_of(&TUNNELS, "connection.state"),
            "since": time(""),
            "algorithms": {"type": "object", "additionalProperties": false, "required": ["ike", "esp"],
                "properties": {"ike": text("AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384"), "esp": text("AES_GCM_16-256")}},
            "bytesIn": {"type": "integer", "minimum": 0},
            "bytesOut": {"type": "integer", "minimum": 0},
            "lastError": text("AUTHENTICATION_FAILED"),
        },
    })
}

fn tags() -> Value {
    json!({
        "type": "object", "maxProperties": 16, "example": {"team": "payments"},
        "propertyNames": {"pattern": "^[A-Za-z0-9_.-]{1,63}$"},
        "additionalProperties": {"type": "string", "maxLength": 255},
    })
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

fn oauth_error() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["error", "error_description"],
        "description": "RFC 6749 §5.2",
        "properties": {"error": text("invalid_client"), "error_description": {"type": "string"}},
    })
}

fn token() -> Value {
    json!({
        "type": "object", "additionalProperties": false,
        "required": ["access_token", "token_type", "expires_in", "scope"],
        "properties": {
            "access_token": {"type": "string"}, "token_type": {"type": "string", "enum": ["Bearer"]},
            "expires_in": {"type": "integer", "example": 3600}, "scope": text("frontdoor.read"),
        },
    })
}

fn token_request() -> Value {
    json!({
        "type": "object", "required": ["grant_type"],
        "properties": {
            "grant_type": {"type": "string", "enum": ["client_credentials"]},
            "client_id": id("acc-"), "client_secret": {"type": "string"}, "scope": text("frontdoor.read"),
        },
    })
}

fn metrics() -> Value {
    let count = json!({"type": "integer", "minimum": 0});
    json!({
        "type": "object", "additionalProperties": false, "required": ["scope", "id", "period", "step", "samples"],
        "properties": {
            "scope": {"type": "string", "enum": ["ipsec-share", "ipsec-tunnel"]},
            "id": {"type": "string"},
            "period": {"type": "integer", "description": "Seconds", "example": 3600},
            "step": {"type": "integer", "description": "Seconds of one sample", "example": 60},
            "samples": {"type": "array", "items": {
                "type": "object", "additionalProperties": false,
                "required": ["rx", "tx", "connections", "failures", "active", "timestamp"],
                "properties": {"rx": count, "tx": count, "connections": count, "failures": count, "active": count,
                    "timestamp": {"type": "integer", "description": "Unix milliseconds", "example": 1_793_404_800_000_u64}},
            }},
            "_links": reference("Links"),
        },
    })
}

fn vpn_config() -> Value {
    let end = json!({
        "type": "object", "additionalProperties": false, "required": ["publicIp", "id", "trafficSelector"],
        "properties": {"publicIp": text("198.51.100.7"), "id": text("198.51.100.7"), "trafficSelector": text("10.255.0.1/32")},
    });
    let phase = json!({
        "type": "object", "additionalProperties": false, "required": ["proposals", "lifetimeSeconds"],
        "properties": {"proposals": {"type": "array", "items": text("aes256gcm16-ecp384")}, "lifetimeSeconds": {"type": "integer"}},
    });
    json!({
        "type": "object", "additionalProperties": false,
        "required": ["name", "ikeVersion", "gateway", "peer", "preSharedKey", "ike", "esp", "dpd", "udpEncapsulation", "initiator"],
        "properties": {
            "name": name(), "ikeVersion": {"type": "integer", "enum": [2]}, "gateway": end, "peer": end,
            "preSharedKey": {"type": "string"}, "ike": phase, "esp": phase,
            "dpd": {"type": "object", "additionalProperties": false, "required": ["delaySeconds", "action"],
                "properties": {"delaySeconds": {"type": "integer"}, "action": {"type": "string"}}},
            "udpEncapsulation": {"type": "boolean"}, "initiator": {"type": "string", "enum": ["peer"]},
            "_links": reference("Links"),
        },
    })
}

fn check() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["shareId", "checkedAt", "ok", "hops"],
        "properties": {
            "shareId": id("shr-"), "checkedAt": time(""), "ok": {"type": "boolean", "description": "All hops are"},
            "hops": {"type": "array", "items": {
                "type": "object", "additionalProperties": false, "required": ["hop", "state", "message"],
                "properties": {
                    "hop": {"type": "string", "enum": ["tunnel", "ikeSa", "listener", "agent", "target"]},
                    "state": {"type": "string", "enum": ["OK", "FAILED", "UNKNOWN"]},
                    "message": {"type": "string"}, "reason": one_of(&SHARES, "statusDetail.reason"),
                    "latencyMs": {"type": "number"}, "agentId": id("agt-"),
                    "advice": {"type": "string", "description": "What to do, of the first hop that is not OK"},
                },
            }},
            "_links": reference("Links"),
        },
    })
}

fn readiness() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["ready"],
        "properties": {"ready": {"type": "boolean"}, "esp": text("kernel"), "reasons": {"type": "array", "items": {"type": "string"}}},
    })
}

fn enrollment() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["frontdoorId", "enrollmentCode", "expiresAt"],
        "properties": {
            "frontdoorId": reference("Uuid"), "enrollmentCode": text("ENR-…"), "expiresAt": time(""),
            "environmentId": id("env-"),
            "agentServer": {"type": "string", "description": "What the agent dials"},
            "_links": reference("Links"),
        },
    })
}
