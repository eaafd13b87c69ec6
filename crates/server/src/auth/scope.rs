//! What tokens are good for.

use std::str::FromStr;
use wicketgate_model::Invalid;

/// What a caller may do. No scope holds another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Read,
    Write,
    Admin,
}

impl Scope {
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "frontdoor.read",
            Self::Write => "frontdoor.write",
            Self::Admin => "frontdoor.admin",
        }
    }

    /// Those among the names; others are another program's.
    pub(super) fn among<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Self> {
        names.filter_map(|name| name.parse().ok()).collect()
    }
}

impl FromStr for Scope {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == s);
        found.ok_or_else(|| Invalid("must be frontdoor.read, frontdoor.write or frontdoor.admin".to_owned()))
    }
}
