//! The IKE identity that a remote device gives (RFC 7296 §3.5): a type and a value.

use std::net::IpAddr;

use crate::{PeerAddress, declare::text, text_enum};

text_enum!(
    /// The type of an IKE identity. Identities of different types differ, even if they read the same.
    IdentityType {
        Ipv4 = "ipv4",
        Ipv6 = "ipv6",
        Fqdn = "fqdn",
        Email = "email",
        KeyId = "keyid",
        DistinguishedName = "dn",
    }
);

text!(
    /// An address, a host name or a mail address; or a type, a colon and a value, for a value that reads like one of another
    /// type. Other characters are refused, since the text stands in device configurations and is matched by the daemon.
    PeerId,
    |s| typed(s).is_some(),
    "must be an IKE identity: an address, or 1 to 255 letters, digits and . - _ @ (a host name or user@host), or such a text \
     after fqdn:, email: or keyid:, or dn: and a distinguished name such as C=DE, O=Example, CN=router"
);

/// The attributes of a distinguished name that IKE daemons have in common, and limits of a name.
const ATTRIBUTES: [&str; 9] = ["C", "ST", "L", "O", "OU", "CN", "DC", "E", "UID"];
const MOST_ATTRIBUTES: usize = 10;
const LONGEST_VALUE: usize = 64;

impl IdentityType {
    /// As part of a sentence, with the prefix of a [`PeerId`].
    pub const fn described(self) -> &'static str {
        match self {
            Self::Ipv4 | Self::Ipv6 => "address",
            Self::Fqdn => "host name (fqdn:)",
            Self::Email => "mail address (email:)",
            Self::KeyId => "key id (keyid:)",
            Self::DistinguishedName => "distinguished name (dn:)",
        }
    }
}

impl PeerId {
    pub fn kind(&self) -> IdentityType {
        typed(self.as_str()).map_or(IdentityType::Fqdn, |(kind, _)| kind)
    }

    /// Without the type.
    pub fn value(&self) -> &str {
        typed(self.as_str()).map_or(self.as_str(), |(_, value)| value)
    }

    /// The same identity in strongSwan's notation, which has the types but for that of distinguished names.
    pub fn in_strongswan(&self) -> String {
        match self.kind() {
            IdentityType::DistinguishedName => attributes(self.value()).collect::<Vec<_>>().join(", "),
            _ => self.as_str().to_owned(),
        }
    }

    /// Whether both have the type and the value, in whatever notation.
    pub fn is(&self, kind: IdentityType, value: &str) -> bool {
        self.kind() == kind && attributes(self.value()).eq(attributes(value))
    }
}

impl From<PeerAddress> for PeerId {
    fn from(address: PeerAddress) -> Self {
        Self(address.to_string())
    }
}

fn typed(text: &str) -> Option<(IdentityType, &str)> {
    let (kind, value) = match text.split_once(':') {
        Some(("fqdn", value)) => (IdentityType::Fqdn, value),
        Some(("email", value)) => (IdentityType::Email, value),
        Some(("keyid", value)) => (IdentityType::KeyId, value),
        Some(("dn", value)) => (IdentityType::DistinguishedName, value),
        _ => match text.parse() {
            // An unspecified address means "any peer" to IKE daemons.
            Ok(address @ IpAddr::V4(_)) => {
                return (!address.is_unspecified()).then_some((IdentityType::Ipv4, text));
            }
            Ok(address @ IpAddr::V6(_)) => {
                return (!address.is_unspecified()).then_some((IdentityType::Ipv6, text));
            }
            Err(_) if text.contains('@') => (IdentityType::Email, text),
            Err(_) => (IdentityType::Fqdn, text),
        },
    };
    let is_valid = match kind {
        IdentityType::DistinguishedName => is_distinguished_name(value),
        _ => (1..=255).contains(&value.len()) && value.bytes().all(is_plain) && !value.starts_with('@'),
    };
    is_valid.then_some((kind, value))
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_@".contains(&byte)
}

/// `C=DE, O=Example, CN=router`: the attributes of a distinguished name; of any other value, itself.
fn attributes(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(|attribute| attribute.strip_prefix(' ').unwrap_or(attribute))
}

fn is_distinguished_name(name: &str) -> bool {
    let is_valid = |attribute: &str| {
        attribute.split_once('=').is_some_and(|(attribute, value)| {
            ATTRIBUTES.contains(&attribute)
                && (1..=LONGEST_VALUE).contains(&value.len())
                && value.bytes().all(|b| is_plain(b) || b == b' ')
                && value.trim() == value
        })
    };
    !name.starts_with(' ') && name.split(',').count() <= MOST_ATTRIBUTES && attributes(name).all(is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<(IdentityType, String)> {
        let id: PeerId = text.parse().ok()?;
        Some((id.kind(), id.value().to_owned()))
    }

    #[test]
    fn a_type_is_read_from_the_form_or_the_prefix() {
        for (text, kind, value) in [
            ("203.0.113.1", IdentityType::Ipv4, "203.0.113.1"),
            ("fd00::1", IdentityType::Ipv6, "fd00::1"),
            ("router.example.org", IdentityType::Fqdn, "router.example.org"),
            ("vpn@example.org", IdentityType::Email, "vpn@example.org"),
            ("fqdn:203.0.113.1", IdentityType::Fqdn, "203.0.113.1"),
            ("fqdn:vpn@example.org", IdentityType::Fqdn, "vpn@example.org"),
            ("email:office", IdentityType::Email, "office"),
            ("keyid:office-7", IdentityType::KeyId, "office-7"),
            ("dn:C=DE, O=An Office, CN=fw7", IdentityType::DistinguishedName, "C=DE, O=An Office, CN=fw7"),
        ] {
            assert_eq!(read(text), Some((kind, value.to_owned())), "{text}");
        }
        let name: PeerId = "dn:C=DE,O=Office".parse().unwrap();
        assert_eq!(name.in_strongswan(), "C=DE, O=Office");
        assert!(name.is(IdentityType::DistinguishedName, "C=DE, O=Office"));
        let bare: PeerId = "a.example".parse().unwrap();
        assert!(bare.is(IdentityType::Fqdn, "a.example") && !bare.is(IdentityType::KeyId, "a.example"));
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "a\"; }",
            "0.0.0.0",
            "::",
            "ipv4:1.2.3.4",
            "%any",
            "@#00",
            "",
            "fqdn:",
            "keyid:a b",
            "keyid:#00",
            "dn:",
            "dn:CN",
            "dn:CN=",
            "dn:X=1",
            "dn:CN= a",
            "dn:CN=a,  O=b",
            "dn: CN=a",
            "dn:CN=a\"b",
            "dn:CN=*",
            "fqdn:*.example",
            "C=DE, CN=a",
        ] {
            assert!(bad.parse::<PeerId>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(s in "((fqdn|email|keyid|dn):)?.{0,80}") {
            let _ = read(&s);
        }

        #[test]
        fn a_value_is_the_rest_and_has_no_character_with_a_meaning(s in "((fqdn|email|keyid|dn):)?[A-Za-z0-9.@=, \"'_-]{1,40}") {
            if let Some((kind, value)) = read(&s) {
                prop_assert!(s.ends_with(&value));
                let plain = |b: u8| is_plain(b) || b == b':';
                prop_assert!(kind == IdentityType::DistinguishedName || value.bytes().all(plain), "{value}");
                prop_assert!(!value.contains(['"', '\'', '\\', '\n']));
            }
        }
    }
}
