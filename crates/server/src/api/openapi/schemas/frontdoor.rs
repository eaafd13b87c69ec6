//! A Frontdoor.

use super::{
    reference,
    text::{text, time},
};
use serde_json::{Value, json};

pub(super) const REQUIRED: &[&str] = &[
    "id",
    "organizationId",
    "defaultNamespaceName",
    "ipsecSharesEnabled",
    "createdAt",
    "updatedAt",
    "createdBy",
];

pub(super) fn properties() -> Value {
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
