//! The record of a write.

use super::{
    one_of, reference,
    text::{id, text, time},
};
use serde_json::{Value, json};
use wicketgate_store::EXECUTIONS;

pub(super) const REQUIRED: &[&str] =
    &["id", "processId", "actor", "action", "resourceType", "resourceId", "status", "createdAt"];

pub(super) fn properties() -> Value {
    json!({
        "id": id("exe-"),
        "processId": id("exe-"),
        "frontdoorId": reference("Uuid"),
        "organizationId": {"type": "string", "example": "default", "description": "Of what is an organization's: its API accounts and Frontdoors"},
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
