//! A tunnel, the state of its connection, and what the remote device has to know.

use super::{
    one_of, reference,
    text::{id, ipv4, location, name, peer_address, peer_id, peer_network, text, time},
};
use serde_json::{Value, json};
use wicketgate_store::TUNNELS;

pub(super) const REQUIRED: &[&str] = &[
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

pub(super) fn properties() -> Value {
    json!({
        "id": id("tnl-"),
        "name": name(),
        "frontdoorId": reference("Uuid"),
        "locationId": location(),
        "status": one_of(&TUNNELS, "status"),
        "statusDetail": reference("StatusDetail"),
        "peerPublicIp": peer_address(),
        "peerCidr": peer_network(),
        "peerId": peer_id(),
        "preSharedKey": {"type": "string", "writeOnly": true, "minLength": 20, "maxLength": 128, "pattern": "^[ -~]*$",
            "description": "Printable ASCII; 256 random bits if left out"},
        "loadBalancerIp": ipv4("What the remote site connects to"),
        "gatewayPublicIp": ipv4("What the remote device dials"),
        "connection": reference("Connection"),
        "tags": reference("Tags"),
        "createdAt": time(""),
        "updatedAt": time(""),
        "deletedAt": time("It stays readable for 30 days"),
        "createdBy": text("admin"),
    })
}

pub(super) fn connection() -> Value {
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

pub(super) fn vpn_config() -> Value {
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
