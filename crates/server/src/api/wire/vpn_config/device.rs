//! What all devices' files have in common: the choice of proposals, and what can't be said.

use super::{Identity, VpnConfig};
use std::net::Ipv4Addr;
use wicketgate_model::{Encryption, Group, Hash};

/// What of a tunnel a device has no words for, as a sentence. Never shows the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::api) enum Inexpressible {
    #[error(
        "{device} can't be given the tunnel's pre-shared key: {rule}. Change the key, or let one be generated"
    )]
    Key { device: &'static str, rule: &'static str },
    #[error("{device} can't give the tunnel's peerId: {rule}")]
    Identity { device: &'static str, rule: &'static str },
    #[error("{device} can do none of the tunnel's {property}: {proposals}")]
    Proposals { device: &'static str, property: &'static str, proposals: String },
}

/// What a device calls the algorithms that it has.
pub(super) struct Names {
    pub(super) device: &'static str,
    pub(super) ike_encryption: &'static [(Encryption, &'static str)],
    pub(super) ike_hash: &'static [(Hash, &'static str)],
    pub(super) ike_group: &'static [(Group, &'static str)],
    pub(super) esp_encryption: &'static [(Encryption, &'static str)],
    pub(super) esp_hash: &'static [(Hash, &'static str)],
    pub(super) esp_group: &'static [(Group, &'static str)],
}

/// A proposal in a device's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Suite {
    pub(super) encryption: &'static str,
    pub(super) is_aead: bool,
    /// Empty for ESP with an AEAD.
    pub(super) hash: &'static str,
    pub(super) group: &'static str,
    proposal: String,
}

/// The proposals that a device can do, at least one, the best first; and those that it can't.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) suites: Vec<Suite>,
    left_out: Vec<String>,
}

fn named<K: PartialEq>(names: &[(K, &'static str)], key: &K) -> Option<&'static str> {
    names.iter().find(|(known, _)| known == key).map(|(_, name)| *name)
}

impl Names {
    pub(super) fn ike(&self, config: &VpnConfig) -> Result<Choice, Inexpressible> {
        let proposals = config.ike.proposals.all().iter().map(|p| {
            let suite = || {
                Some(Suite {
                    encryption: named(self.ike_encryption, &p.encryption)?,
                    is_aead: p.encryption.is_aead(),
                    hash: named(self.ike_hash, &p.hash)?,
                    group: named(self.ike_group, &p.group)?,
                    proposal: p.to_string(),
                })
            };
            suite().ok_or_else(|| p.to_string())
        });
        self.choose("ikeProposals", proposals)
    }

    pub(super) fn esp(&self, config: &VpnConfig) -> Result<Choice, Inexpressible> {
        let proposals = config.esp.proposals.all().iter().map(|p| {
            let suite = || {
                Some(Suite {
                    encryption: named(self.esp_encryption, &p.encryption)?,
                    is_aead: p.encryption.is_aead(),
                    hash: match &p.integrity {
                        Some(hash) => named(self.esp_hash, hash)?,
                        None => "",
                    },
                    group: named(self.esp_group, &p.group)?,
                    proposal: p.to_string(),
                })
            };
            suite().ok_or_else(|| p.to_string())
        });
        self.choose("espProposals", proposals)
    }

    fn choose(
        &self,
        property: &'static str,
        proposals: impl Iterator<Item = Result<Suite, String>>,
    ) -> Result<Choice, Inexpressible> {
        let mut choice = Choice { suites: Vec::new(), left_out: Vec::new() };
        for proposal in proposals {
            match proposal {
                Ok(suite) => choice.suites.push(suite),
                Err(left_out) => choice.left_out.push(left_out),
            }
        }
        if choice.suites.is_empty() {
            let proposals = choice.left_out.join(", ");
            return Err(Inexpressible::Proposals { device: self.device, property, proposals });
        }
        Ok(choice)
    }

    /// The peer's identity, for a device that has no IPv6 there.
    pub(super) fn identity<'a>(&self, config: &'a VpnConfig) -> Result<Ipv4Identity<'a>, Inexpressible> {
        match config.peer.identity() {
            Identity::Address(std::net::IpAddr::V4(address)) => Ok(Ipv4Identity::Address(address)),
            Identity::Address(std::net::IpAddr::V6(_)) => {
                Err(Inexpressible::Identity { device: self.device, rule: "it is an IPv6 address" })
            }
            Identity::HostName(name) => Ok(Ipv4Identity::HostName(name)),
            Identity::Mail(mail) => Ok(Ipv4Identity::Mail(mail)),
        }
    }

    /// The tunnel's key as it is, for a device that takes all printable characters but those of `without`.
    pub(super) fn key_without<'a>(
        &self,
        config: &'a VpnConfig,
        without: &str,
        rule: &'static str,
    ) -> Result<&'a str, Inexpressible> {
        let key = config.pre_shared_key.expose();
        if key.contains(|c| without.contains(c)) {
            return Err(Inexpressible::Key { device: self.device, rule });
        }
        Ok(key)
    }
}

/// An [`Identity`] without IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ipv4Identity<'a> {
    Address(Ipv4Addr),
    HostName(&'a str),
    Mail(&'a str),
}

impl Choice {
    /// For a device that takes one group only: that of the best suite.
    pub(super) fn of_one_group(self) -> (&'static str, Self) {
        self.of_one(|suite| suite.group)
    }

    /// For a device that takes one hash only: that of the best suite.
    pub(super) fn of_one_hash(self) -> (&'static str, Self) {
        self.of_one(|suite| suite.hash)
    }

    fn of_one(mut self, part: fn(&Suite) -> &'static str) -> (&'static str, Self) {
        let best = self.suites.first().map_or("", part);
        let (kept, others): (Vec<_>, Vec<_>) = self.suites.into_iter().partition(|suite| part(suite) == best);
        self.suites = kept;
        self.left_out.extend(others.into_iter().map(|suite| suite.proposal));
        (best, self)
    }

    /// For a device that takes some suites only: the best ones.
    pub(super) fn at_most(mut self, most: usize) -> Self {
        let others = self.suites.split_off(self.suites.len().min(most));
        self.left_out.extend(others.into_iter().map(|suite| suite.proposal));
        self
    }

    /// Each once, the best first.
    pub(super) fn encryptions(&self) -> Vec<&'static str> {
        once(self.suites.iter().map(|suite| suite.encryption))
    }

    pub(super) fn hashes(&self) -> Vec<&'static str> {
        once(self.suites.iter().map(|suite| suite.hash).filter(|hash| !hash.is_empty()))
    }

    pub(super) fn groups(&self) -> Vec<&'static str> {
        once(self.suites.iter().map(|suite| suite.group))
    }
}

fn once(all: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let mut seen = Vec::new();
    for one in all {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    seen
}

/// A comment on the proposals that are not in the file; empty if all are.
pub(super) fn left_out(comment: &str, ike: &Choice, esp: &Choice) -> String {
    let mut text = String::new();
    for (what, choice) in [("IKE", ike), ("ESP", esp)] {
        if !choice.left_out.is_empty() {
            let proposals = choice.left_out.join(", ");
            text += &format!(
                "{comment} Left out of {what}, as this device can't offer it, or not beside the others: {proposals}\n"
            );
        }
    }
    text
}
