//! How a template writes a pre-shared key so that no character of it ends its place or has a meaning there.

use base64::{Engine, engine::general_purpose::STANDARD};

/// In base64, with the prefix that marks it for strongSwan, Libreswan and what is built on them. Without it, a key that
/// itself starts with `0s` or `0x` would be read as encoded.
pub(super) fn base64(key: &str) -> String {
    format!("0s{}", STANDARD.encode(key))
}

pub(super) fn hex(key: &str) -> String {
    key.bytes().map(|b| format!("{b:02x}")).collect()
}

/// Whether every device takes the key as it is: no character has a meaning anywhere, and the key is not read as a
/// number in another notation.
pub(super) fn is_plain(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic()) && is_word(key)
}

/// Whether it consists of letters, digits, dots and underscores.
pub(super) fn is_word(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._".contains(&b))
}

/// Text of an XML element or attribute.
pub(super) fn xml(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&apos;")
}

/// In double quotes, with a backslash before each quote and backslash.
pub(super) fn backslashed(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', r#"\""#))
}
