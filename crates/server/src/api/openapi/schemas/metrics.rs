//! What was carried.

use super::reference;
use serde_json::{Value, json};

pub(super) fn metrics() -> Value {
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
