//! Proposals: the suites of algorithms that a gateway offers a remote site.
//!
//! The notation, such as `aes256gcm16-prfsha384-ecp384`, is part of the API's contract, so it is parsed and written here. An
//! IPsec engine and a device's configuration have notations of their own, which are theirs to write. Invariant: a proposal
//! that parses is strong; a weak algorithm is refused by its name.

mod algorithm;

use crate::{Invalid, declare::serde_as_text};
use algorithm::weakness;
pub use algorithm::{Encryption, Group, Hash};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// One suite for an IKE SA: `aes256gcm16-prfsha384-ecp384`, `aes256-sha256-modp2048`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IkeProposal {
    pub encryption: Encryption,
    /// Of the pseudo-random function, and without an AEAD of the integrity check, too.
    pub hash: Hash,
    pub group: Group,
}

/// One suite for a CHILD SA: `aes256gcm16-ecp384`, `aes256-sha256-modp2048`, `aes256gcm16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EspProposal {
    pub encryption: Encryption,
    /// Of the integrity check; `None` exactly with an AEAD.
    pub integrity: Option<Hash>,
    /// For perfect forward secrecy (RFC 7296 §1.3.1): rekeys make a new Diffie-Hellman exchange. `None` for a device that
    /// makes none. The first CHILD SA has no group in any case.
    pub group: Option<Group>,
}

const fn ike(encryption: Encryption, hash: Hash, group: Group) -> IkeProposal {
    IkeProposal { encryption, hash, group }
}

const fn esp(encryption: Encryption, integrity: Option<Hash>, group: Group) -> EspProposal {
    EspProposal { encryption, integrity, group: Some(group) }
}

/// The default offer, best first. Modern devices have the first one in common, nearly all devices have the last one.
const IKE_OFFER: [IkeProposal; 7] = [
    ike(Encryption::Aes256Gcm, Hash::Sha384, Group::Ecp384),
    ike(Encryption::Aes256Gcm, Hash::Sha256, Group::Ecp256),
    ike(Encryption::Aes256Gcm, Hash::Sha384, Group::X25519),
    ike(Encryption::Aes256Gcm, Hash::Sha384, Group::Modp2048),
    ike(Encryption::Aes256Cbc, Hash::Sha384, Group::Ecp384),
    ike(Encryption::Aes256Cbc, Hash::Sha256, Group::Ecp256),
    ike(Encryption::Aes256Cbc, Hash::Sha256, Group::Modp2048),
];
const ESP_OFFER: [EspProposal; 6] = [
    esp(Encryption::Aes256Gcm, None, Group::Ecp384),
    esp(Encryption::Aes256Gcm, None, Group::Ecp256),
    esp(Encryption::Aes256Gcm, None, Group::X25519),
    esp(Encryption::Aes256Gcm, None, Group::Modp2048),
    esp(Encryption::Aes256Cbc, Some(Hash::Sha256), Group::Ecp256),
    esp(Encryption::Aes256Cbc, Some(Hash::Sha256), Group::Modp2048),
];

/// The words of a proposal, at most one of each kind.
#[derive(Default)]
struct Words {
    encryption: Option<Encryption>,
    integrity: Option<Hash>,
    prf: Option<Hash>,
    group: Option<Group>,
}

impl Words {
    fn parse(s: &str, example: &str) -> Result<Self, Invalid> {
        let mut words = Self::default();
        for word in s.to_ascii_lowercase().split('-') {
            if let Some(why) = weakness(word) {
                return Err(Invalid::new(format!("must do without {word} ({why})")));
            }
            let is_new = if let Some(it) = Encryption::from_keyword(word) {
                words.encryption.replace(it).is_none()
            } else if let Some(it) = Hash::from_keyword(word) {
                words.integrity.replace(it).is_none()
            } else if let Some(it) = word.strip_prefix("prf").and_then(Hash::from_keyword) {
                words.prf.replace(it).is_none()
            } else if let Some(it) = Group::from_keyword(word) {
                words.group.replace(it).is_none()
            } else {
                return Err(Invalid::new(format!("must be like {example}")));
            };
            if !is_new {
                return Err(Invalid::new("must have one algorithm of a kind in each proposal"));
            }
        }
        Ok(words)
    }
}

impl FromStr for IkeProposal {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        let example = "aes256gcm16-prfsha384-ecp384 or aes256-sha256-modp2048";
        let words = Words::parse(s, example)?;
        let (Some(encryption), Some(group)) = (words.encryption, words.group) else {
            return Err(Invalid::new(format!("must have an encryption and a group, like {example}")));
        };
        let hash = match (encryption.is_aead(), words.integrity, words.prf) {
            (true, None, Some(prf)) => Some(prf),
            (false, Some(integrity), None) => Some(integrity),
            (false, Some(integrity), Some(prf)) if integrity == prf => Some(prf),
            _ => None,
        };
        let hash = hash.ok_or_else(|| {
            Invalid::new(format!("must have a prf with GCM, and one hash for both uses without: {example}"))
        })?;
        Ok(Self { encryption, hash, group })
    }
}

impl FromStr for EspProposal {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        let example = "aes256gcm16-ecp384 or aes256-sha256-modp2048";
        let words = Words::parse(s, example)?;
        let encryption = words.encryption;
        let encryption =
            encryption.ok_or_else(|| Invalid::new(format!("must have an encryption, like {example}")))?;
        if words.prf.is_some() || encryption.is_aead() == words.integrity.is_some() {
            return Err(Invalid::new(format!("must have a hash without GCM, and none with it: {example}")));
        }
        Ok(Self { encryption, integrity: words.integrity, group: words.group })
    }
}

impl fmt::Display for IkeProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prf = if self.encryption.is_aead() { "prf" } else { "" };
        write!(f, "{}-{prf}{}-{}", self.encryption, self.hash, self.group)
    }
}

impl fmt::Display for EspProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.encryption)?;
        if let Some(hash) = self.integrity {
            write!(f, "-{hash}")?;
        }
        self.group.map_or(Ok(()), |group| write!(f, "-{group}"))
    }
}

macro_rules! proposals {
    ($(#[$doc:meta])* $name:ident of $one:ident as $list:literal, $offer:ident) => {
        serde_as_text!($one);

        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = $list)]
        pub struct $name(Vec<$one>);

        impl $name {
            /// A longer first message might be fragmented, and old routers drop fragments.
            pub const MOST: usize = 10;

            pub fn all(&self) -> &[$one] {
                &self.0
            }
        }

        /// The default offer.
        impl Default for $name {
            fn default() -> Self {
                Self($offer.to_vec())
            }
        }

        impl TryFrom<Vec<$one>> for $name {
            type Error = Invalid;

            fn try_from(all: Vec<$one>) -> Result<Self, Invalid> {
                if !(1..=Self::MOST).contains(&all.len()) {
                    let most = Self::MOST;
                    return Err(Invalid::new(format!("must be 1 to {most} proposals; left out, all are offered")));
                }
                match (1..all.len()).find(|n| all[..*n].contains(&all[*n])) {
                    Some(twice) => Err(Invalid::new(format!("must not name {} twice", all[twice]))),
                    None => Ok(Self(all)),
                }
            }
        }

        /// With commas between them.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let all: Vec<_> = self.0.iter().map(ToString::to_string).collect();
                f.write_str(&all.join(", "))
            }
        }
    };
}

proposals!(
    /// One to [`IkeProposals::MOST`] suites for the IKE SA, the best first.
    IkeProposals of IkeProposal as "Vec<IkeProposal>", IKE_OFFER
);
proposals!(
    /// One to [`EspProposals::MOST`] suites for the CHILD SA, the best first.
    EspProposals of EspProposal as "Vec<EspProposal>", ESP_OFFER
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prelude::*, sample::select};

    fn any_ike() -> impl Strategy<Value = IkeProposal> {
        (select(Encryption::ALL), select(Hash::ALL), select(Group::ALL)).prop_map(|(e, h, g)| ike(e, h, g))
    }

    proptest! {
        #[test]
        fn display_parses_again(ike in any_ike()) {
            prop_assert_eq!(ike.to_string().parse::<IkeProposal>(), Ok(ike));
            let esp = esp(ike.encryption, (!ike.encryption.is_aead()).then_some(ike.hash), ike.group);
            for esp in [esp, EspProposal { group: None, ..esp }] {
                prop_assert_eq!(esp.to_string().parse::<EspProposal>(), Ok(esp));
            }
        }

        #[test]
        fn no_text_panics(s in "([a-z0-9]{1,12}-?){0,6}|.{0,40}") {
            let _ = (s.parse::<IkeProposal>(), s.parse::<EspProposal>());
        }
    }

    #[test]
    fn the_default_offer_is_valid() {
        for offer in [IkeProposals::default().to_string(), EspProposals::default().to_string()] {
            assert!(offer.starts_with("aes256gcm16-"), "{offer}");
        }
        assert_eq!(IkeProposals::try_from(IKE_OFFER.to_vec()), Ok(IkeProposals::default()));
        assert_eq!(EspProposals::try_from(ESP_OFFER.to_vec()), Ok(EspProposals::default()));
    }

    #[test]
    fn weak_algorithms_are_refused_by_name() {
        for (text, name) in [
            ("3des-sha256-modp2048", "3des"),
            ("des-sha256-modp2048", "des "),
            ("aes256-md5-modp2048", "md5"),
            ("aes256-sha1-modp2048", "sha1"),
            ("aes256-sha256-modp1024", "modp1024"),
            ("aes256-sha256-modp768", "modp768"),
            ("AES256-SHA1-MODP2048", "sha1"),
            ("aes256gcm16-prfsha1-ecp256", "prfsha1"),
        ] {
            let refused = text.parse::<IkeProposal>().unwrap_err().0;
            assert!(refused.starts_with("must do without ") && refused.contains(name), "{text}: {refused}");
        }
        assert!("null-sha256-ecp256".parse::<EspProposal>().unwrap_err().0.contains("encrypts nothing"));
    }

    #[test]
    fn incomplete_proposals_are_refused() {
        for bad in [
            "",
            "aes256gcm16",
            "aes256gcm16-ecp384",
            "aes256gcm16-sha384-ecp384",
            "aes256-sha256",
            "aes256-prfsha256-ecp256",
            "aes256-aes128-sha256-ecp256",
            "aes256-sha256-prfsha384-ecp256",
            "rot13",
        ] {
            assert!(bad.parse::<IkeProposal>().is_err(), "{bad}");
        }
        for bad in [
            "aes256",
            "sha256-ecp384",
            "aes256gcm16-sha256-ecp384",
            "aes256-ecp256",
            "aes256gcm16-prfsha384-ecp384",
        ] {
            assert!(bad.parse::<EspProposal>().is_err(), "{bad}");
        }
        assert_eq!(
            "aes256gcm-prfsha256-curve25519".parse(),
            Ok(ike(Encryption::Aes256Gcm, Hash::Sha256, Group::X25519))
        );
        let twice = EspProposals::try_from([ESP_OFFER[0], ESP_OFFER[1], ESP_OFFER[0]].to_vec()).unwrap_err();
        assert!(twice.0.contains("twice"), "{twice}");
    }
}
