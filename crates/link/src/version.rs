//! Versions of the protocol, and the one that two ends agree on.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The versions of this build. Raise `newest` with every change that an older end would misread, and `oldest` when
/// such ends are no longer supported.
pub const VERSIONS: Versions = Versions { oldest: 5, newest: 6 };

/// The first version whose gateways take [`ToGateway::GatewayLists`](crate::ToGateway::GatewayLists).
const GATEWAY_LISTS: u32 = 6;

/// The versions that one end speaks, both bounds included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    pub oldest: u32,
    pub newest: u32,
}

/// The two ends have no version in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this end of the link speaks protocol {own} and the other end {other}: upgrade the older one")]
pub struct VersionMismatch {
    pub own: Versions,
    pub other: Versions,
}

impl Versions {
    /// The newest version that both ends speak.
    ///
    /// # Errors
    ///
    /// The two ends have no version in common.
    pub fn common(self, other: Self) -> Result<u32, VersionMismatch> {
        let newest = self.newest.min(other.newest);
        let is_common = newest >= self.oldest.max(other.oldest);
        is_common.then_some(newest).ok_or(VersionMismatch { own: self, other })
    }
}

impl Versions {
    /// Whether a gateway that speaks these versions takes [`ToGateway::GatewayLists`](crate::ToGateway::GatewayLists) from this build.
    pub fn take_gateway_lists(self) -> bool {
        VERSIONS.common(self).is_ok_and(|version| version >= GATEWAY_LISTS)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { oldest, newest } if oldest == newest => write!(f, "{oldest}"),
            Self { oldest, newest } => write!(f, "{oldest} to {newest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_gateway_is_sent_no_lists() {
        assert!(VERSIONS.take_gateway_lists());
        assert!(!Versions { oldest: 5, newest: 5 }.take_gateway_lists());
        assert!(Versions { oldest: 6, newest: 9 }.take_gateway_lists());
    }

    #[test]
    fn the_lower_of_both_newest_versions_is_used() {
        let versions = |oldest, newest| Versions { oldest, newest };
        assert_eq!(versions(1, 3).common(versions(2, 5)), Ok(3));
        assert_eq!(versions(2, 5).common(versions(1, 2)), Ok(2));
        let error = versions(1, 2).common(versions(3, 3)).unwrap_err();
        assert!(error.to_string().contains("1 to 2") && error.to_string().contains("other end 3"), "{error}");
        assert!(versions(3, 3).common(versions(1, 2)).is_err());
    }
}
