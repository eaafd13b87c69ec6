//! The limits of a handover link.

use crate::{
    Invalid,
    declare::{bounded, transparent},
};
use secrecy::{ExposeSecret, SecretString};
use std::{ops::RangeInclusive, str::FromStr};

bounded! {
    /// How often a link can be opened: by each device and each tab again, so several times by one person.
    MaxUses(u32), 1..=1000
}

/// What a link is protected with besides its token. Its length bounds what a thief of the database can guess; a reader who has the
/// link alone is stopped by the number of tries.
#[derive(Debug, Clone)]
pub struct Passphrase(SecretString);

impl Passphrase {
    pub const LENGTH: RangeInclusive<usize> = 8..=128;

    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl FromStr for Passphrase {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if Self::LENGTH.contains(&text.chars().count()) && !text.chars().any(char::is_control) {
            Ok(Self(text.into()))
        } else {
            let (least, most) = (Self::LENGTH.start(), Self::LENGTH.end());
            Err(Invalid::new(format!("must be {least} to {most} printable characters")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_has_a_length_and_is_never_printed() {
        let good: Passphrase = "correct horse".parse().unwrap();
        assert!(!format!("{good:?}").contains("horse"));
        for bad in ["", "seven77", &"x".repeat(129), "tab\tinside"] {
            assert!(bad.parse::<Passphrase>().is_err(), "{bad:?}");
        }
    }
}
