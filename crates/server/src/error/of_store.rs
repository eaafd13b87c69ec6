//! What a caller reads of the store's errors.

use super::{ApiError, capitalized};
use tracing::error;
use wicketgate_store::StoreError;

impl From<StoreError> for ApiError {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::NoFrontdoor(id) => Self::frontdoor_not_found(id),
            StoreError::ActorRevoked => Self::token_invalid(),
            StoreError::QuotaExceeded { frontdoor, kind, limit, used } => {
                Self::quota_exceeded(frontdoor, kind, limit, used)
            }
            StoreError::LocationShare { location, limit, used } => {
                Self::location_share(&location, limit, used)
            }
            StoreError::NoSlot => Self::conflict("The location has no room for another tunnel"),
            StoreError::NoAddress => Self::conflict(
                "No load balancer pool has a free address outside of peerCidr; add one with --load-balancer-pool",
            ),
            StoreError::InUse { with } => Self::conflict(format!("In use by {with}")),
            StoreError::HasShares { count, .. } => Self::conflict(format!("In use by {count} shares")),
            StoreError::TooManyLinks(count) => Self::conflict(format!(
                "{count} handover links have neither expired nor been revoked, as many as a tunnel may have: \
                 revoke one that is not needed"
            )),
            StoreError::SourceOutside { with, source_cidr, peer_cidr } => Self::conflict(format!(
                "peerCidr can't be {peer_cidr}: allowedSources of IPsec share {with} has {source_cidr}, \
                 which is not within it"
            )),
            StoreError::Stale
            | StoreError::Superseded
            | StoreError::Conflict { .. }
            | StoreError::Reference { .. }
            | StoreError::NotLive(_)
            | StoreError::Missing => {
                Self::conflict("The resource was changed by another request at the same time; try again")
            }
            StoreError::Open(_)
            | StoreError::Archive(_)
            | StoreError::Files { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Database(_)
            | StoreError::Commit(_)
            | StoreError::Unconfirmed(_)
            | StoreError::Late
            | StoreError::RolledBack
            | StoreError::DiskHangs => {
                error!(error = %e, source = ?std::error::Error::source(&e).map(ToString::to_string), "database failed");
                Self::unavailable(capitalized(&e.fault().to_string()))
            }
        }
    }
}
