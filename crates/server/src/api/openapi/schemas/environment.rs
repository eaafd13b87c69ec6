//! An environment, with its agents.

use super::{
    one_of, reference,
    text::{id, name, text, time},
};
use serde_json::{Value, json};
use wicketgate_store::ENVIRONMENTS;

pub(super) const REQUIRED: &[&str] =
    &["id", "zId", "frontdoorId", "name", "status", "agents", "createdAt", "updatedAt"];

pub(super) fn properties() -> Value {
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
