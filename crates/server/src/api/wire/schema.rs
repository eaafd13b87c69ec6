//! Schemas of values: patterns as exact as they can be; descriptions say the rest.

use serde_json::{Value, json};

/// A part of an IPv4 address.
const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
/// The first part of a unicast address that is neither loopback nor in 169/8.
const UNICAST: &str =
    "([1-9]|[1-9][0-9]|1[01][0-9]|12[0-68-9]|1[345][0-9]|16[0-8]|1[789][0-9]|2[01][0-9]|22[0-3])";
/// What follows 169 and is not link-local.
const NOT_LINK_LOCAL: &str = "169\\.(25[0-35]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
/// 1 to 65535.
const PORT: &str = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])";
/// A label of a DNS name, and a last label, which is not a number.
const LABEL: &str = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?";
const LAST_LABEL: &str = "[0-9]{0,30}[A-Za-z_]([A-Za-z0-9_-]{0,30}[A-Za-z0-9_])?";
/// Of RFC 4291 §2.2, without an IPv4 address in it.
const GROUP: &str = "[0-9A-Fa-f]{1,4}";
/// No control characters.
const PRINTABLE: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";

pub(in crate::api) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

pub(in crate::api) fn text(example: &str) -> Value {
    json!({"type": "string", "example": example})
}

pub(in crate::api) fn id(prefix: &str) -> Value {
    json!({"type": "string", "pattern": format!("^{prefix}[0-9a-f]{{32}}$"),
        "example": format!("{prefix}0190f3a4c0de7000800000000000abcd")})
}

pub(in crate::api) fn time(description: &str) -> Value {
    json!({"type": "string", "format": "date-time", "description": description, "example": "2038-11-05T09:00:00Z"})
}

pub(in crate::api) fn name() -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$", "example": "app-db"})
}

pub(in crate::api) fn location() -> Value {
    json!({"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", "example": "us-east-1"})
}

/// `least` to `most` characters without control characters.
pub(in crate::api) fn printable(least: u32, most: u32, example: &str) -> Value {
    json!({"type": "string", "minLength": least, "maxLength": most, "pattern": PRINTABLE, "example": example})
}

pub(in crate::api) fn ipv4(description: &str) -> Value {
    json!({"type": "string", "format": "ipv4", "description": description, "example": "198.51.100.7"})
}

pub(in crate::api) fn peer_address() -> Value {
    let pattern = format!("^({UNICAST}\\.{OCTET}|{NOT_LINK_LOCAL})\\.{OCTET}\\.{OCTET}$");
    json!({"type": "string", "format": "ipv4", "pattern": pattern, "example": "203.0.113.1"})
}

pub(in crate::api) fn peer_network() -> Value {
    let pattern = format!(
        "^({UNICAST}\\.{OCTET}\\.{OCTET}\\.{OCTET}/([89]|[12][0-9]|3[0-2])|{NOT_LINK_LOCAL}\\.{OCTET}\\.{OCTET}/(1[6-9]|2[0-9]|3[0-2]))$"
    );
    json!({"type": "string", "pattern": pattern, "example": "172.31.0.0/16",
        "description": "The network behind the remote device, without host bits"})
}

pub(in crate::api) fn source() -> Value {
    let pattern = format!("^{OCTET}\\.{OCTET}\\.{OCTET}\\.{OCTET}(/([0-9]|[12][0-9]|3[0-2]))?$");
    json!({"type": "string", "pattern": pattern, "example": "172.31.8.0/24"})
}

pub(in crate::api) fn peer_id() -> Value {
    json!({"type": "string", "example": "203.0.113.1", "pattern":
        format!("^([A-Za-z0-9._-][A-Za-z0-9._@-]{{0,254}}|{})$", ipv6()),
        "description": "The IKE identity; `peerPublicIp` if left out"})
}

/// An IPv6 address: eight groups, or fewer around one `::`.
fn ipv6() -> String {
    let mut forms = vec![format!("({GROUP}:){{7}}{GROUP}"), format!("({GROUP}:){{1,7}}:")];
    forms.extend((1..7).map(|after| format!("({GROUP}:){{1,{}}}(:{GROUP}){{1,{after}}}", 7 - after)));
    forms.push(format!(":(:{GROUP}){{1,7}}"));
    format!("({})", forms.join("|"))
}

pub(in crate::api) fn target() -> Value {
    let host = format!(
        "({OCTET}\\.{OCTET}\\.{OCTET}\\.{OCTET}|\\[({}|::)\\]|({LABEL}\\.){{0,63}}{LAST_LABEL})",
        ipv6()
    );
    json!({"type": "string", "pattern": format!("^(tcp://)?{host}:{PORT}$"), "example": "10.20.100.1:8443",
        "description": "`host:port`, where the host is an IPv4 address, a bracketed IPv6 address or a DNS name of at most \
            253 characters; `tcp://` is taken off"})
}

pub(in crate::api) fn organization() -> Value {
    json!({"type": "string", "pattern": "^[!-~]{1,128}$", "example": "default"})
}

pub(in crate::api) fn z_id() -> Value {
    text("ijcrWb-ZOq")
}

pub(in crate::api) fn actor() -> Value {
    text("admin")
}

pub(in crate::api) fn deleted_at() -> Value {
    time("The resource stays readable for 30 days")
}

/// One of a closed list.
pub(in crate::api) fn one_of(names: &[&str]) -> Value {
    json!({"type": "string", "enum": names})
}
