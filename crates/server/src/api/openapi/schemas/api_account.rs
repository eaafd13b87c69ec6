//! API accounts, and the tokens that their secrets are exchanged for.

use super::{
    reference,
    text::{id, printable, text, time},
};
use serde_json::{Value, json};

pub(super) const REQUIRED: &[&str] =
    &["clientId", "name", "organizationId", "scopes", "createdAt", "createdBy"];

pub(super) fn properties() -> Value {
    json!({
        "clientId": id("acc-"),
        "name": printable(1, 63, "deploy"),
        "organizationId": {"type": "string", "pattern": "^[!-~]{1,128}$", "example": "default"},
        "scopes": {"type": "array", "minItems": 1,
            "items": {"type": "string", "enum": ["frontdoor.read", "frontdoor.write", "frontdoor.admin"]}},
        "frontdoorIds": {"type": "array", "minItems": 1, "maxItems": 100, "items": reference("Uuid"),
            "description": "Left out, it reaches all of its organization's"},
        "expiresAt": time("Never, if left out"),
        "createdAt": time(""),
        "createdBy": text("admin"),
    })
}

pub(super) fn token_request() -> Value {
    json!({
        "type": "object", "required": ["grant_type"],
        "properties": {
            "grant_type": {"type": "string", "enum": ["client_credentials"]},
            "client_id": id("acc-"), "client_secret": {"type": "string"}, "scope": text("frontdoor.read"),
        },
    })
}

pub(super) fn token() -> Value {
    json!({
        "type": "object", "additionalProperties": false,
        "required": ["access_token", "token_type", "expires_in", "scope"],
        "properties": {
            "access_token": {"type": "string"}, "token_type": {"type": "string", "enum": ["Bearer"]},
            "expires_in": {"type": "integer", "example": 3600}, "scope": text("frontdoor.read"),
        },
    })
}

pub(super) fn oauth_error() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["error", "error_description"],
        "description": "RFC 6749 §5.2",
        "properties": {"error": text("invalid_client"), "error_description": {"type": "string"}},
    })
}
