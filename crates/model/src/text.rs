//! Names: short texts with a rule each.

use crate::declare::text;
use std::net::IpAddr;

text!(
    /// The name of a share, a tunnel or an environment: a host name's label (RFC 1123 §2.1).
    ResourceName,
    |s| hyphenated(s, |b| b.is_ascii_alphanumeric()),
    "must be 1 to 63 letters, digits and hyphens, with no hyphen first or last"
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
text!(
    /// The IKE identity that the remote device gives (RFC 7296 §3.5): an address, a host name or a mail address.
    /// Other characters are refused, since the text stands in device configurations and is matched by the daemon.
    PeerId,
    // An unspecified address means "any peer" to IKE daemons, and a colon outside an address a type's prefix.
    |s| match s.parse::<IpAddr>() {
        Ok(address) => !address.is_unspecified(),
        Err(_) => {
            (1..=255).contains(&s.len())
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_@".contains(&b))
                && s.as_bytes()[0] != b'@'
        }
    },
    "must be an IKE identity: an address, or 1 to 255 letters, digits and . - _ @ (a host name or user@host)"
);

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
            let _ = (s.parse::<ResourceName>(), s.parse::<LocationId>(), s.parse::<NamespaceName>(), s.parse::<PeerId>());
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
        assert!("1a".parse::<NamespaceName>().is_err());
        assert!("US-EAST".parse::<LocationId>().is_err());
        for bad in ["a\"; }", "0.0.0.0", "::", "ipv4:1.2.3.4", "%any", "@#00", ""] {
            assert!(bad.parse::<PeerId>().is_err(), "{bad:?}");
        }
        for good in ["203.0.113.1", "fd00::1", "router.example.org", "vpn@example.org"] {
            assert!(good.parse::<PeerId>().is_ok(), "{good:?}");
        }
    }
}
