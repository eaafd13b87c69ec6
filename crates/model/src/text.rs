//! Names: short texts with a rule each.

use crate::declare::text;

text!(
    /// The name of a share, a tunnel or an environment: a host name's label (RFC 1123 §2.1).
    ResourceName,
    |s| hyphenated(s, |b| b.is_ascii_alphanumeric()),
    "must be 1 to 63 letters, digits and hyphens, with no hyphen first or last"
);
text!(
    /// The name of an agent: like a host's name, by default that of its host. Several agents may have the same.
    AgentName,
    |s| (1..=64).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    "must be 1 to 64 letters, digits, hyphens, dots and underscores"
);
text!(
    /// A note about a share or a tunnel.
    Description,
    |s| s.chars().count() <= 500 && !s.chars().any(char::is_control),
    "must be at most 500 printable characters"
);
text!(
    /// A site that has gateways: `us-east-1`, `local`.
    LocationId,
    |s| hyphenated(s, |b| b.is_ascii_lowercase() || b.is_ascii_digit()),
    "must be 1 to 63 lower-case letters, digits and hyphens, with no hyphen first or last"
);
text!(
    /// The default namespace of a Frontdoor: a label that starts with a lower-case letter.
    NamespaceName,
    |s| hyphenated(s, |b| b.is_ascii_lowercase() || b.is_ascii_digit()) && s.as_bytes()[0].is_ascii_lowercase(),
    "must match ^[a-z]([a-z0-9-]*[a-z0-9])?$ and be 1 to 63 characters"
);

/// At most `longest` characters of a text from elsewhere, without those that control a terminal, or the direction of what is
/// around them.
pub fn plain(text: &str, longest: usize) -> String {
    text.chars().filter(|c| !is_treacherous(*c)).take(longest).collect()
}

/// Whether the character controls a terminal, or the direction of what is around it, or has no width. What prints texts of others
/// has the same list: `wicketgate_system::terminal`.
pub fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn hyphenated(s: &str, letter: fn(u8) -> bool) -> bool {
    let b = s.as_bytes();
    (1..=63).contains(&b.len())
        && b.iter().all(|&b| letter(b) || b == b'-')
        && b.first() != Some(&b'-')
        && b.last() != Some(&b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_text_panics(s in ".{0,80}") {
            let _ = (s.parse::<ResourceName>(), s.parse::<LocationId>(), s.parse::<NamespaceName>());
        }

        #[test]
        fn a_label_parses(s in "[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?") {
            prop_assert!(s.parse::<ResourceName>().is_ok());
        }
    }

    #[test]
    fn values_beyond_the_limits_are_refused() {
        for bad in ["", "-a", "a-", "a b", "ä", "a_b", &"a".repeat(64)] {
            assert!(bad.parse::<ResourceName>().is_err(), "{bad:?}");
        }
        for (name, is_good) in
            [("dc-1.example.org", true), ("", false), ("a b", false), (&"a".repeat(65), false)]
        {
            assert_eq!(name.parse::<AgentName>().is_ok(), is_good, "{name:?}");
        }
        assert!("1a".parse::<NamespaceName>().is_err());
        assert!("US-EAST".parse::<LocationId>().is_err());
    }
}
