//! A tunnel, the state of its connection, and what the remote device has to know.

use super::{
    one_of, reference, request,
    text::{id, ipv4, location, name, peer_address, peer_id, peer_network, text, time},
};
use crate::api::wire::tunnel::{Grace, KEY_PROPERTIES};
use serde_json::{Value, json};
use wicketgate_model::{EspProposals, IkeProposals};
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
    "initiate",
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
        "ikeProposals": proposals(IKE, "aes256gcm16-prfsha384-ecp384", IkeProposals::MOST, "IKE SA"),
        "espProposals": proposals(ESP, "aes256gcm16-ecp384", EspProposals::MOST, "CHILD SA"),
        "initiate": {"type": "boolean",
            "description": "The gateway starts the connection, and again whenever it is down; else, and if it is left out, it only answers"},
        "previousKeyUntil": time("While it is there, a key before the present one works, too"),
        "connection": reference("Connection"),
        "tags": reference("Tags"),
        "createdAt": time(""),
        "updatedAt": time(""),
        "deletedAt": time("It stays readable for 30 days"),
        "createdBy": text("admin"),
    })
}

/// What is taken is more: other names of the same algorithms, and capital letters.
const IKE: &str = "^(aes(128|256)gcm16-prfsha(256|384|512)|aes(128|256)-sha(256|384|512))-(ecp(256|384|521)|x25519|modp(2048|3072|4096))$";
const ESP: &str =
    "^(aes(128|256)gcm16|aes(128|256)-sha(256|384|512))-(ecp(256|384|521)|x25519|modp(2048|3072|4096))$";

fn proposals(pattern: &str, example: &str, most: usize, of: &str) -> Value {
    json!({"type": "array", "minItems": 1, "maxItems": most, "uniqueItems": true,
        "items": {"type": "string", "pattern": pattern, "example": example},
        "description": format!("What the two ends may agree on for the {of}, the best first, in strongSwan's notation; \
            all that the gateway offers if left out. Weak algorithms are refused by name. A connection that has \
            another suite is ended")})
}

pub(super) fn key_request() -> Value {
    let properties = json!({
        "preSharedKey": properties()["preSharedKey"],
        "graceSeconds": {"type": "integer", "minimum": 0, "maximum": Grace::MOST_SECONDS, "default": 86400,
            "description": "How long the keys before it still work; with 0, they end at once"},
    });
    request(&properties, KEY_PROPERTIES.writable, KEY_PROPERTIES.read_only, &[])
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
            "peer": {
                "type": "object", "additionalProperties": false, "required": ["address", "port"],
                "description": "The other end, from when it is negotiated with",
                "properties": {
                    "address": ipv4("What its packets come from; behind a NAT, the NAT's"),
                    "port": {"type": "integer", "minimum": 0, "maximum": 65535},
                    "id": {"type": "string", "description": "The IKE identity that it has proved"},
                },
            },
            "nat": {
                "type": "object", "additionalProperties": false, "required": ["gateway", "peer"],
                "description": "Which side is behind a translation, as IKE sees it (RFC 7296 §2.23). The gateway's always \
                    is: each tunnel has an address of its own behind the host's",
                "properties": {"gateway": {"type": "boolean"}, "peer": {"type": "boolean"}},
            },
            "ikeSa": sa("IKE SA"),
            "childSa": sa("CHILD SA that traffic takes"),
            "bytesIn": {"type": "integer", "minimum": 0},
            "bytesOut": {"type": "integer", "minimum": 0},
            "lastError": {
                "type": "object", "additionalProperties": false, "required": ["reason", "message", "since"],
                "description": "Why the peer could not connect, or rekey, when it last tried; gone when it could",
                "properties": {
                    "reason": one_of(&TUNNELS, "connection.lastError.reason"),
                    "message": {"type": "string", "description": "What was seen, and what to do",
                        "example": "the peer speaks IKEv1: set its device to IKEv2"},
                    "since": time("Since when every try has failed like this"),
                },
            },
        },
    })
}

/// A change says how the connection was from then on.
pub(super) fn connection_change() -> Value {
    let connection = connection();
    let mut error = connection["properties"]["lastError"].clone();
    error["required"] = json!(["reason", "message"]);
    error["description"] = json!("What stood in the way then");
    if let Some(Value::Object(properties)) = error.get_mut("properties") {
        properties.remove("since");
    }
    json!({
        "number": {"type": "integer", "minimum": 1, "description": "Counts the tunnel's changes, those that are forgotten too"},
        "at": time(""),
        "state": one_of(&TUNNELS, "connection.state"),
        "peer": connection["properties"]["peer"],
        "algorithms": connection["properties"]["algorithms"],
        "lastError": error,
    })
}

fn sa(of: &str) -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["establishedAt"],
        "description": format!("The {of}; a rekey makes a new one"),
        "properties": {
            "establishedAt": time(""),
            "rekeyAt": time("When the gateway rekeys it, if the peer does not do so before"),
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
        "required": ["name", "ikeVersion", "gateway", "peer", "preSharedKey", "ike", "esp", "dpd", "mtu", "mss", "routes", "udpEncapsulation", "initiator"],
        "properties": {
            "name": name(), "ikeVersion": {"type": "integer", "enum": [2]}, "gateway": end, "peer": end,
            "preSharedKey": {"type": "string"}, "ike": phase, "esp": phase,
            "dpd": {"type": "object", "additionalProperties": false, "required": ["delaySeconds", "action"],
                "properties": {"delaySeconds": {"type": "integer"}, "action": {"type": "string"}}},
            "mtu": {"type": "integer", "description": "Of packets inside the tunnel"},
            "mss": {"type": "integer", "description": "What the site has to clamp TCP segments to"},
            "routes": {"type": "array", "items": text("10.255.0.1/32"), "description": "What the site sends into the tunnel"},
            "udpEncapsulation": {"type": "boolean", "description": "Whether ESP has to be wrapped in UDP port 4500 (RFC 3948): the \
                device must offer NAT traversal, or no data passes. If not, one without it sends ESP as it is"}, "initiator": {"type": "string", "enum": ["peer", "both"], "description": "Which side starts the connection; `both` with `initiate`"},
            "_links": reference("Links"),
        },
    })
}
