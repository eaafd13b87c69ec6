//! What the fuzz targets and a test run. Only they see this module.

use crate::allow::AllowRule;
pub use crate::proxy::{http_proxy_answer, socks5_answer};
use std::str::from_utf8;

/// An accepted rule of an allow list is printed as a text of the same rule.
pub fn allow_rule(text: &[u8]) {
    let Some(rule) = from_utf8(text).ok().and_then(|text| text.parse::<AllowRule>().ok()) else { return };
    let again = rule.to_string().parse::<AllowRule>();
    assert!(again.is_ok_and(|again| again.to_string() == rule.to_string()), "{rule}");
}

#[test]
fn mutations_of_the_seeds_keep_the_properties() {
    wicketgate_seeds::replay("allow_rule", 3000, allow_rule);
    wicketgate_seeds::replay("http_proxy_answer", 3000, http_proxy_answer);
    wicketgate_seeds::replay("socks5_answer", 3000, socks5_answer);
}
