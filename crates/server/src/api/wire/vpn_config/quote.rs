//! How a pre-shared key is written so that it stays in its place, whatever its characters are.

use base64::{Engine, engine::general_purpose::STANDARD};
use wicketgate_model::PreSharedKey;

/// In base64, with the prefix that says so to strongSwan, Libreswan and what is built on them. Without it, a key that
/// itself starts with `0s` or `0x` would be read as encoded.
pub(super) fn base64(key: &PreSharedKey) -> String {
    format!("0s{}", STANDARD.encode(key.expose()))
}

pub(super) fn hex(key: &PreSharedKey) -> String {
    key.expose().bytes().map(|b| format!("{b:02x}")).collect()
}

/// Whether every device takes the key as it stands: no character means anything anywhere, and it is not taken for a
/// number in another notation.
pub(super) fn is_plain(key: &PreSharedKey) -> bool {
    let key = key.expose();
    key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._".contains(&b))
}

/// Text of an XML element or attribute.
pub(super) fn xml(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => quoted += "&amp;",
            '<' => quoted += "&lt;",
            '>' => quoted += "&gt;",
            '"' => quoted += "&quot;",
            '\'' => quoted += "&apos;",
            c => quoted.push(c),
        }
    }
    quoted
}

/// Between double quotes, in which a backslash takes the meaning from the next character.
pub(super) fn backslashed(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}
