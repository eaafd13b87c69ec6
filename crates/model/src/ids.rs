//! Identifiers. Made elsewhere from a version 7 UUID, so that their order is the order of creation.

use crate::{
    Invalid,
    declare::{serde_as_text, text},
};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// A UUID after a prefix that names the type: `shr-0190f3…`, 32 hexadecimal digits.
/// The empty prefix is written as a plain hyphenated UUID, as the API has it for a Frontdoor.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Takes a fresh UUID; version 7 keeps the order of creation.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if $prefix.is_empty() {
                    self.0.hyphenated().fmt(f)
                } else {
                    write!(f, concat!($prefix, "{}"), self.0.simple())
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(s: &str) -> Result<Self, Invalid> {
                let uuid = if $prefix.is_empty() {
                    (s.len() == 36).then(|| Uuid::parse_str(s).ok()).flatten()
                } else {
                    s.strip_prefix($prefix).filter(|u| u.len() == 32).and_then(|u| Uuid::parse_str(u).ok())
                };
                // One spelling only: an id is compared as text in URLs, logs and the database.
                uuid.map(Self)
                    .filter(|id| id.to_string() == s)
                    .ok_or_else(|| {
                        Invalid::new(if $prefix.is_empty() {
                            "must be a UUID"
                        } else {
                            concat!("must be an id like ", $prefix, "…")
                        })
                    })
            }
        }

        serde_as_text!($name);
    };
}

id!(/** A Frontdoor: a customer's collection of tunnels, environments and shares. */ FrontdoorId, "");
id!(/** An IPsec tunnel. */ TunnelId, "tnl-");
id!(/** An IPsec share. */ ShareId, "shr-");
id!(/** An environment: a private network that hosting agents serve. */ EnvironmentId, "env-");
id!(/** One replica of a hosting agent. */ AgentId, "agt-");
id!(/** A gateway. */ GatewayId, "gwy-");
id!(/** A server: one process of the control plane. */ ServerId, "srv-");
id!(/** The record of one asynchronous write. */ ExecutionId, "exe-");
id!(/** An enrolment code, without its secret. */ EnrollmentId, "enr-");
id!(/** A gateway's join token, without its secret. */ JoinTokenId, "gwj-");
id!(/** An API account: its client id. */ ApiAccountId, "acc-");
id!(/** A handover link, without its token. */ HandoverLinkId, "lnk-");

text!(
    /// An environment's short public name, as shares name it: ten letters, digits and hyphens (`ijcrWb-ZOq`).
    ZId,
    |s| s.len() == ZId::LENGTH && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
    "must be the zId of an environment: ten letters, digits or hyphens"
);

impl ZId {
    const LENGTH: usize = 10;
    const LETTERS: &'static [u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-0";

    /// Ten letters out of ten random bytes. Its first and last are never a hyphen.
    pub fn from_random(bytes: [u8; Self::LENGTH]) -> Self {
        let letter = |(i, b): (usize, u8)| {
            let edge = i == 0 || i == Self::LENGTH - 1;
            char::from(Self::LETTERS[usize::from(b) % if edge { 62 } else { 63 }])
        };
        Self(bytes.into_iter().enumerate().map(letter).collect())
    }
}

/// An environment as a request names it: by its id or by its zId. No text is both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvironmentKey {
    Id(EnvironmentId),
    ZId(ZId),
}

impl FromStr for EnvironmentKey {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        let by_id = s.parse().map(Self::Id);
        by_id.or_else(|_| s.parse().map(Self::ZId)).map_err(|_: Invalid| {
            Invalid::new(
                "must be the zId of an environment, ten letters, digits or hyphens, or its id, like env-…",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_text_of_an_id_parses_again(bits: u128) {
            let share = ShareId::new(Uuid::from_u128(bits));
            prop_assert_eq!(share.to_string().parse::<ShareId>(), Ok(share));
            let frontdoor = FrontdoorId::new(Uuid::from_u128(bits));
            prop_assert_eq!(frontdoor.to_string().parse::<FrontdoorId>(), Ok(frontdoor));
        }

        #[test]
        fn text_order_is_id_order(a: u128, b: u128) {
            let (a, b) = (TunnelId::new(Uuid::from_u128(a)), TunnelId::new(Uuid::from_u128(b)));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn a_random_zid_parses(bytes: [u8; 10]) {
            let id = ZId::from_random(bytes);
            prop_assert_eq!(id.as_str().parse::<ZId>(), Ok(id.clone()));
            prop_assert!(!id.as_str().starts_with('-') && !id.as_str().ends_with('-'));
        }
    }

    #[test]
    fn another_spelling_is_refused() {
        assert!("shr-0190F3A4000070008000000000000001".parse::<ShareId>().is_err());
        assert!("tnl-0190f3a4000070008000000000000001".parse::<ShareId>().is_err());
        assert!("0190f3a4-0000-7000-8000-000000000001".parse::<FrontdoorId>().is_ok());
        assert!("0190f3a4000070008000000000000001".parse::<FrontdoorId>().is_err());
    }
}
