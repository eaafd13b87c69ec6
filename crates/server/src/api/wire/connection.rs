//! A tunnel's live connection in JSON.

use super::{
    property::{CONNECTION_FAULTS, CONNECTION_STATES},
    schema::{ipv4, one_of, text, time},
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use wicketgate_model::{Algorithms, Connection, ConnectionFault, ConnectionState, Nat, Peer, SaTimes};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct LiveConnection {
    state: ConnectionState,
    since: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithms: Option<Algorithms>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Peer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nat: Option<Nat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ike_sa: Option<SaTimes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_sa: Option<SaTimes>,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<LastError>,
}

/// `message` is the cause and the cure in one text.
#[derive(Debug, Serialize)]
struct LastError {
    reason: ConnectionFault,
    message: String,
    since: Timestamp,
}

impl From<Connection> for LiveConnection {
    fn from(connection: Connection) -> Self {
        let Connection {
            state,
            since,
            algorithms,
            peer,
            nat,
            ike_sa,
            child_sa,
            bytes_in,
            bytes_out,
            last_error,
        } = connection;
        let last_error =
            last_error.map(|e| LastError { reason: e.reason, message: e.to_string(), since: e.since });
        Self { state, since, algorithms, peer, nat, ike_sa, child_sa, bytes_in, bytes_out, last_error }
    }
}

pub(in crate::api) fn schema() -> Value {
    let mut error = last_error("Why the peer last failed to connect or to rekey; gone once it succeeds");
    error["properties"]["since"] = time("Since when every attempt has failed for this reason");
    error["required"] = json!(["reason", "message", "since"]);
    json!({
        "type": "object", "additionalProperties": false, "required": ["state", "since", "bytesIn", "bytesOut"],
        "description": "The state of the connection to the peer, as the gateway's IKE daemon reports it",
        "properties": {
            "state": one_of(CONNECTION_STATES),
            "since": time(""),
            "algorithms": algorithms(),
            "peer": peer(),
            "nat": {
                "type": "object", "additionalProperties": false, "required": ["gateway", "peer"],
                "description": "Which side is behind a NAT, as IKE detects it (RFC 7296 §2.23). The gateway always is: \
                    each tunnel has an address of its own behind the host's",
                "properties": {"gateway": {"type": "boolean"}, "peer": {"type": "boolean"}},
            },
            "ikeSa": sa("IKE SA"),
            "childSa": sa("CHILD SA that carries the traffic"),
            "bytesIn": {"type": "integer", "minimum": 0},
            "bytesOut": {"type": "integer", "minimum": 0},
            "lastError": error,
        },
    })
}

pub(super) fn algorithms() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["ike", "esp"],
        "properties": {"ike": text("AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384"), "esp": text("AES_GCM_16-256")},
    })
}

pub(super) fn peer() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["address", "port"],
        "description": "The remote end, from the start of the negotiation",
        "properties": {
            "address": ipv4("The source address of its packets; behind a NAT, the NAT's"),
            "port": {"type": "integer", "minimum": 0, "maximum": 65535},
            "id": {"type": "string", "description": "Its authenticated IKE identity"},
        },
    })
}

pub(super) fn last_error(description: &str) -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["reason", "message"],
        "description": description,
        "properties": {
            "reason": one_of(CONNECTION_FAULTS),
            "message": {"type": "string", "description": "What was observed, and what to do",
                "example": "the peer speaks IKEv1: set its device to IKEv2"},
        },
    })
}

fn sa(of: &str) -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["establishedAt"],
        "description": format!("The {of}; replaced by each rekey"),
        "properties": {
            "establishedAt": time(""),
            "rekeyAt": time("When the gateway rekeys it, unless the peer does so before"),
        },
    })
}
