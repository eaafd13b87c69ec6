//! Quotas: how much a Frontdoor may have of each kind of resource, so that one customer does not take what others need.

use crate::{
    Invalid,
    declare::{bounded, serde_as_text, transparent},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, str::FromStr};

crate::text_enum!(
    /// What is limited. [`QuotaKind::Frontdoors`] are counted in their organization, all else in a Frontdoor.
    QuotaKind {
        /// Tunnels that are not `DELETED`.
        Tunnels = "tunnels",
        /// Shares that are not `DELETED`.
        Shares = "shares",
        /// Environments, and unused enrolment codes that will create one.
        Environments = "environments",
        /// Agents, and unused enrolment codes, each of which will enrol one.
        Agents = "agents",
        /// Enrolment codes that an agent can still enrol with.
        EnrollmentCodes = "enrollment-codes",
        /// API accounts that reach the Frontdoor and are not revoked.
        ApiAccounts = "api-accounts",
        /// Handover links that are neither revoked nor expired.
        HandoverLinks = "handover-links",
        /// Clients that follow the events of the Frontdoor at one time.
        EventStreams = "event-streams",
        /// Frontdoors of one organization.
        Frontdoors = "frontdoors",
    }
);
serde_as_text!(QuotaKind);

bounded! {
    /// The most that there may be of a kind.
    QuotaLimit(u32), 0..=1_000_000
}

impl QuotaKind {
    /// The kinds that a Frontdoor has a quota of.
    pub fn of_frontdoor() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| *kind != Self::Frontdoors)
    }

    /// The limit where nothing else is set: room for a large customer, of whom a gateway holds several.
    pub const fn default_limit(self) -> QuotaLimit {
        QuotaLimit::fixed(match self {
            Self::Tunnels => 250,
            Self::Shares => 4000,
            Self::Environments => 200,
            Self::Agents => 400,
            Self::EnrollmentCodes => 100,
            Self::ApiAccounts => 200,
            Self::HandoverLinks => 500,
            Self::EventStreams => 32,
            Self::Frontdoors => 10,
        })
    }
}

impl QuotaLimit {
    const fn fixed(limit: u32) -> Self {
        Self(limit)
    }
}

/// Limits that differ from others: those of an installation from the defaults, those of a Frontdoor from the installation's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quotas(BTreeMap<QuotaKind, QuotaLimit>);

impl Quotas {
    pub fn get(&self, kind: QuotaKind) -> Option<QuotaLimit> {
        self.0.get(&kind).copied()
    }

    /// Of an installation.
    pub fn or_default(&self, kind: QuotaKind) -> QuotaLimit {
        self.get(kind).unwrap_or_else(|| kind.default_limit())
    }

    /// Of a Frontdoor, in an installation with these quotas.
    pub fn within(&self, installation: &Self, kind: QuotaKind) -> QuotaLimit {
        self.get(kind).unwrap_or_else(|| installation.or_default(kind))
    }
}

impl FromIterator<QuotaSetting> for Quotas {
    /// The last setting of a kind counts.
    fn from_iter<I: IntoIterator<Item = QuotaSetting>>(settings: I) -> Self {
        Self(settings.into_iter().map(|QuotaSetting { kind, limit }| (kind, limit)).collect())
    }
}

/// One limit, written as `shares=5000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaSetting {
    pub kind: QuotaKind,
    pub limit: QuotaLimit,
}

impl FromStr for QuotaSetting {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let form = || Invalid::new("must be a kind and a limit, like shares=5000");
        let (kind, limit) = text.split_once('=').ok_or_else(form)?;
        let kind = kind.parse().map_err(|rule: Invalid| Invalid::new(format!("{kind} {rule}")))?;
        let limit: i64 = limit.parse().map_err(|_| form())?;
        Ok(Self { kind, limit: limit.try_into()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frontdoors_own_limit_precedes_that_of_the_installation_and_the_default() {
        let set = |texts: &[&str]| texts.iter().map(|t| t.parse::<QuotaSetting>().unwrap()).collect();
        let (own, installation): (Quotas, Quotas) =
            (set(&["shares=7"]), set(&["shares=5", "shares=6", "tunnels=8"]));
        let limit = |kind| own.within(&installation, kind).get();
        assert_eq!((limit(QuotaKind::Shares), limit(QuotaKind::Tunnels)), (7, 8));
        assert_eq!(limit(QuotaKind::Agents), QuotaKind::Agents.default_limit().get());
        assert_eq!(installation.or_default(QuotaKind::Shares).get(), 6);
    }

    #[test]
    fn a_setting_is_a_kind_and_a_limit() {
        for bad in ["shares", "shares=", "shares=x", "shares=-1", "shares=1000001", "share=1", "=1"] {
            assert!(bad.parse::<QuotaSetting>().is_err(), "{bad}");
        }
        let refused = "share=1".parse::<QuotaSetting>().unwrap_err().to_string();
        assert!(refused.contains("tunnels"), "{refused}");
    }
}
