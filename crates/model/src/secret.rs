//! A tunnel's pre-shared key.

use crate::Invalid;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};

/// 20–128 printable ASCII characters (a device's template has to quote them). Never shown by `Debug`; cleared
/// from memory when dropped.
#[derive(Clone)]
pub struct PreSharedKey(SecretString);

impl PreSharedKey {
    /// 256 random bits, in 43 letters, digits, dots and underscores. The first is a letter: every device takes such a
    /// key as it is, and none takes it for a number in another notation.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._";
        // The first has four bits, the others six each.
        let letter = |i: usize| {
            let bits = |from: usize, count: usize| {
                (from..from + count)
                    .fold(0, |n, bit| n << 1 | usize::from(bytes[bit / 8] >> (7 - bit % 8) & 1))
            };
            char::from(LETTERS[if i == 0 { bits(0, 4) } else { bits(i * 6 - 2, 6) }])
        };
        Self((0..43).map(letter).collect::<String>().into())
    }

    /// The key itself, for the IKE daemon, the database and the tunnel's configuration.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl FromStr for PreSharedKey {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        if (20..=128).contains(&s.len()) && s.bytes().all(|b| matches!(b, b' '..=b'~')) {
            Ok(Self(s.to_owned().into()))
        } else {
            Err(Invalid::new("must be 20 to 128 printable ASCII characters"))
        }
    }
}

impl PartialEq for PreSharedKey {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}
impl Eq for PreSharedKey {}

impl fmt::Debug for PreSharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PreSharedKey(…)")
    }
}

/// For the authenticated link to a gateway and for the configuration of a device.
impl Serialize for PreSharedKey {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for PreSharedKey {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_random_key_is_valid_and_distinct(a: [u8; 32], b: [u8; 32]) {
            let (ka, kb) = (PreSharedKey::from_random(a), PreSharedKey::from_random(b));
            prop_assert!(ka.expose().parse::<PreSharedKey>().is_ok());
            prop_assert!(ka.expose().starts_with(|c: char| c.is_ascii_alphabetic()));
            prop_assert_eq!(a == b, ka == kb);
        }
    }

    #[test]
    fn debug_does_not_show_the_key() {
        let key = PreSharedKey::from_random([7; 32]);
        assert!(!format!("{key:?}").contains(key.expose()));
        assert!("too short".parse::<PreSharedKey>().is_err());
        assert!(format!("{}\n", "a".repeat(20)).parse::<PreSharedKey>().is_err());
        assert!("a".repeat(129).parse::<PreSharedKey>().is_err());
    }
}
