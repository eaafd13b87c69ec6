//! A hosting agent, and the code that enrols one.

use super::{
    one_of, reference,
    text::{id, text, time},
};
use crate::api::wire::agent::SHARE_STATES;
use serde_json::{Value, json};
use wicketgate_link::SHARES_PER_AGENT;
use wicketgate_store::AGENTS;

pub(super) const REQUIRED: &[&str] =
    &["id", "frontdoorId", "environmentId", "envZId", "name", "status", "createdAt"];

pub(super) fn properties() -> Value {
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
        "lastSeen": time("Of one that is not connected"),
        "shares": {"type": "array", "maxItems": SHARES_PER_AGENT, "description": "Those of its environment as it sees them, \
                while it is connected; the first 200",
            "items": {"type": "object", "additionalProperties": false, "required": ["id", "state"],
                "properties": {"id": id("shr-"), "state": {"type": "string", "enum": SHARE_STATES},
                    "message": {"type": "string", "description": "Why it refuses the share, or can't reach the target"}}}},
        "createdAt": time(""),
    })
}

pub(super) fn enrollment() -> Value {
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
