//! The proposals of a tunnel in a device's names of algorithms.

use super::device::{Device, Inexpressible};
use serde::Serialize;
use wicketgate_model::{EspProposal, Group, IkeProposal};

/// One row an algorithm, one column a device.
const ALGORITHMS: &str = include_str!("devices/algorithms.txt");

/// The row for a proposal without a group.
const NO_GROUP: &str = "none";

/// A proposal in a device's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Suite {
    encryption: &'static str,
    aead: bool,
    /// Empty for ESP with an AEAD.
    hash: &'static str,
    group: &'static str,
}

/// A proposal as the API writes it, and as the device does, if it supports it.
pub(super) type Translated = (String, Option<Suite>);

/// The proposals that a device's configuration contains, at least one, the best first; and those that it does not.
#[derive(Debug, Serialize)]
pub(super) struct Offer {
    suites: Vec<Suite>,
    /// The suites without those that differ from an earlier one in the group only.
    pairs: Vec<Suite>,
    encryptions: Vec<&'static str>,
    hashes: Vec<&'static str>,
    groups: Vec<&'static str>,
    left_out: Vec<String>,
}

impl Device {
    pub(super) fn ike(&self, proposal: &IkeProposal) -> Translated {
        let suite = || {
            Some(Suite {
                encryption: self.algorithm(&format!("ike {}", proposal.encryption))?,
                aead: proposal.encryption.is_aead(),
                hash: self.algorithm(&format!("ike {}", proposal.hash))?,
                group: self.algorithm(proposal.group.keyword())?,
            })
        };
        (proposal.to_string(), suite())
    }

    pub(super) fn esp(&self, proposal: &EspProposal) -> Translated {
        let suite = || {
            Some(Suite {
                encryption: self.algorithm(&format!("esp {}", proposal.encryption))?,
                aead: proposal.encryption.is_aead(),
                hash: match proposal.integrity {
                    Some(hash) => self.algorithm(&format!("esp {hash}"))?,
                    None => "",
                },
                group: self.algorithm(proposal.group.map_or(NO_GROUP, Group::keyword))?,
            })
        };
        (proposal.to_string(), suite())
    }

    /// The device's name of an algorithm; `None` if it does not support it.
    fn algorithm(&self, keyword: &str) -> Option<&'static str> {
        let mut rows = ALGORITHMS.lines().filter(|line| !line.starts_with('#'));
        let column = cells(rows.next()?).position(|format| format == self.format)?;
        let mut row = rows.map(cells).find_map(|mut row| (row.next() == Some(keyword)).then_some(row))?;
        row.nth(column - 1).filter(|name| *name != "-")
    }
}

fn cells(row: &str) -> impl Iterator<Item = &str> {
    row.split('|').map(str::trim)
}

impl Offer {
    /// `one` is `group` or `hash` if all suites must have that of the best one; `most` is the number of suites that the
    /// device takes.
    pub(super) fn new(
        device: &'static Device,
        property: &'static str,
        proposals: &[Translated],
        one: Option<&str>,
        most: usize,
    ) -> Result<Self, Inexpressible> {
        let supported = || proposals.iter().filter_map(|(name, suite)| Some((name, suite.as_ref()?)));
        let Some((_, best)) = supported().next() else {
            let proposals: Vec<_> = proposals.iter().map(|(name, _)| name.as_str()).collect();
            let proposals = proposals.join(", ");
            return Err(Inexpressible::Proposals { device: device.name, property, proposals });
        };
        let none = device.algorithm(NO_GROUP);
        let fits = |suite: &Suite| match one {
            Some("group") => suite.group == best.group,
            Some("hash") => suite.hash == best.hash,
            // Perfect forward secrecy is on or off for all suites.
            _ => (none == Some(suite.group)) == (none == Some(best.group)),
        };
        let (mut kept, others): (Vec<_>, Vec<_>) = supported().partition(|(_, suite)| fits(suite));
        let rest = kept.split_off(kept.len().min(most));
        let unsupported = proposals.iter().filter(|(_, suite)| suite.is_none()).map(|(name, _)| name);
        let left_out = unsupported.chain(others.iter().chain(&rest).map(|(name, _)| *name)).cloned();
        let suites: Vec<Suite> = kept.into_iter().map(|(_, suite)| suite.clone()).collect();
        Ok(Self {
            pairs: once(suites.iter().map(|suite| Suite { group: "", ..suite.clone() })),
            encryptions: once(suites.iter().map(|suite| suite.encryption)),
            hashes: once(suites.iter().map(|suite| suite.hash).filter(|hash| !hash.is_empty())),
            groups: once(suites.iter().map(|suite| suite.group)),
            left_out: left_out.collect(),
            suites,
        })
    }
}

/// Each once, in the order of their first occurrence.
fn once<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    all.fold(Vec::new(), |mut seen, one| {
        if !seen.contains(&one) {
            seen.push(one);
        }
        seen
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::vpn_config::devices::DEVICES;
    use wicketgate_model::{Encryption, Hash};

    /// The table has exactly the known rows and columns, and no cell is empty.
    #[test]
    fn the_table_has_all_algorithms_and_devices() {
        let mut rows =
            ALGORITHMS.lines().filter(|line| !line.starts_with('#')).map(|row| cells(row).collect());
        let header: Vec<&str> = rows.next().unwrap();
        let formats: Vec<_> = DEVICES.iter().map(|d| d.format).filter(|f| *f != "strongswan").collect();
        assert_eq!(header[1..], formats);
        let rows: Vec<Vec<&str>> = rows.collect();
        let mut keywords = Vec::new();
        for phase in ["ike", "esp"] {
            keywords.extend(Encryption::ALL.iter().map(|e| format!("{phase} {e}")));
            keywords.extend(Hash::ALL.iter().map(|h| format!("{phase} {h}")));
        }
        keywords.extend(Group::ALL.iter().map(ToString::to_string));
        keywords.push(NO_GROUP.to_owned());
        keywords.sort();
        let mut named: Vec<_> = rows.iter().map(|row| row[0]).collect();
        named.sort_unstable();
        assert_eq!(named, keywords);
        for row in rows {
            assert!(row.len() == header.len() && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
        }
    }
}
