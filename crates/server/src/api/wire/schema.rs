//! JSON schemas. `schema/values.json` has those of properties, by the property's name.
//!
//! A data file names a part of a pattern as `<NAME>`, and a closed list of the code as `"<Type>"`.

use crate::{
    auth::Scope,
    error::{ErrorCode, OAuthErrorCode},
};
use serde_json::{Value, json};
use std::sync::LazyLock;
use wicketgate_model::{ConnectionDoubt, ConnectionFault, ConnectionState, InnerProtocol, Reason};
use wicketgate_store::SessionKind;

/// Patterns are as exact as they can be; descriptions say the rest. A part may contain parts that come after it.
const PARTS: &[(&str, &str)] = &[
    // Of RFC 4291 §2.2, without an IPv4 address in it: eight groups, or fewer around one `::`.
    (
        "<IPV6>",
        "(<GROUP>:){7}<GROUP>|(<GROUP>:){1,7}:|(<GROUP>:){1,6}(:<GROUP>){1,1}|(<GROUP>:){1,5}(:<GROUP>){1,2}\
         |(<GROUP>:){1,4}(:<GROUP>){1,3}|(<GROUP>:){1,3}(:<GROUP>){1,4}|(<GROUP>:){1,2}(:<GROUP>){1,5}\
         |(<GROUP>:){1,1}(:<GROUP>){1,6}|:(:<GROUP>){1,7}",
    ),
    ("<GROUP>", "[0-9A-Fa-f]{1,4}"),
    // An IPv4 network, or an address.
    ("<NETWORK>", "(<OCTET>\\\\.){3}<OCTET>(/([0-9]|[12][0-9]|3[0-2]))?"),
    // A part of an IPv4 address.
    ("<OCTET>", "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"),
    // The first part of a unicast address that is neither loopback nor in 169/8.
    (
        "<UNICAST>",
        "([1-9]|[1-9][0-9]|1[01][0-9]|12[0-68-9]|1[345][0-9]|16[0-8]|1[789][0-9]|2[01][0-9]|22[0-3])",
    ),
    // The second part of an address in 169/8 that is not link-local.
    ("<NOT_LINK_LOCAL>", "(25[0-35]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"),
    // 1 to 65535.
    ("<PORT>", "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"),
    // A label of a DNS name, and a last label, which is not a number.
    ("<LABEL>", "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"),
    ("<LAST_LABEL>", "[0-9]{0,30}[A-Za-z_]([A-Za-z0-9_-]{0,30}[A-Za-z0-9_])?"),
];

const LISTS: &[(&str, &[&str])] = &[
    ("\"<ConnectionDoubt>\"", ConnectionDoubt::NAMES),
    ("\"<ConnectionFault>\"", ConnectionFault::NAMES),
    ("\"<ConnectionState>\"", ConnectionState::NAMES),
    ("\"<ErrorCode>\"", ErrorCode::NAMES),
    ("\"<InnerProtocol>\"", InnerProtocol::NAMES),
    ("\"<OAuthErrorCode>\"", OAuthErrorCode::NAMES),
    ("\"<Reason>\"", Reason::NAMES),
    ("\"<Scope>\"", Scope::NAMES),
    ("\"<SessionKind>\"", SessionKind::NAMES),
];

static VALUES: LazyLock<Value> = LazyLock::new(|| filled(include_str!("schema/values.json")));

/// The JSON of a data file, with everything that it names.
pub(in crate::api) fn filled(text: &str) -> Value {
    let text = PARTS.iter().fold(text.to_owned(), |text, (name, part)| text.replace(name, part));
    let list = |text: String, (name, list): &(&str, &[&str])| text.replace(name, &json!(list).to_string());
    serde_json::from_str(&LISTS.iter().fold(text, list)).unwrap_or_default()
}

/// An entry of `schema/values.json`.
pub(in crate::api) fn value(name: &str) -> Option<Value> {
    VALUES.get(name).cloned()
}

pub(in crate::api) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}
