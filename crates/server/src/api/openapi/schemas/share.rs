//! A share, and the walk along its path.

use super::{
    one_of, reference,
    text::{id, location, name, source, target, text, time},
};
use serde_json::{Value, json};
use wicketgate_store::SHARES;

pub(super) const REQUIRED: &[&str] = &[
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

pub(super) fn properties() -> Value {
    json!({
        "id": id("shr-"),
        "name": name(),
        "frontdoorId": reference("Uuid"),
        "ipsecTunnelId": id("tnl-"),
        "envZId": {"type": "string", "pattern": "^[A-Za-z0-9-]{10}$", "example": "ijcrWb-ZOq",
            "description": "In requests also `envId`"},
        "envId": {"type": "string", "writeOnly": true, "description": "Another name of `envZId`"},
        "target": target(),
        "ingressPort": {"type": "integer", "minimum": 1, "maximum": 65535, "example": 8443},
        "status": one_of(&SHARES, "status"),
        "statusDetail": reference("StatusDetail"),
        "locationId": location(),
        "allowedSources": {"type": "array", "minItems": 1, "maxItems": 64, "items": source(), "uniqueItems": true,
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

pub(super) fn check() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["shareId", "checkedAt", "ok", "hops"],
        "properties": {
            "shareId": id("shr-"), "checkedAt": time(""), "ok": {"type": "boolean", "description": "No hop has failed or is unknown"},
            "hops": {"type": "array", "items": {
                "type": "object", "additionalProperties": false, "required": ["hop", "state", "message"],
                "properties": {
                    "hop": {"type": "string", "enum": ["tunnel", "ikeSa", "listener", "agent", "target"]},
                    "state": {"type": "string", "enum": ["OK", "FAILED", "UNKNOWN", "SKIPPED"]},
                    "message": {"type": "string"}, "reason": one_of(&SHARES, "statusDetail.reason"),
                    "latencyMs": {"type": "number", "description": "Left out where nothing could be measured"}, "agentId": id("agt-"),
                    "advice": {"type": "string", "description": "What to do, of a hop that has failed"},
                },
            }},
            "_links": reference("Links"),
        },
    })
}
