//! Errors of the store.

use crate::{Column, DatabaseFault, NamedRow};
use std::{path::PathBuf, sync::Arc};
use wicketgate_model::{FrontdoorId, LocationId, PeerCidr, QuotaKind, SourceCidr, Status};
use wicketgate_seal::SealError;

pub type Result<T, E = StoreError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another row has the same value of a unique column. `with` is that row, unless it is of another Frontdoor.
    #[error("the value of {column} is taken")]
    Conflict { column: &'static Column, with: Option<NamedRow> },
    /// A row that is in use can't be deleted: `with` uses it.
    #[error("in use by {with}")]
    InUse { with: NamedRow },
    /// A tunnel with live shares can't be deleted; `first` is the oldest.
    #[error("in use by {count} shares")]
    HasShares { count: u64, first: NamedRow },
    /// A tunnel has as many handover links that can be opened, or have pages open, as it may.
    #[error("the tunnel has {0} handover links that have not ended")]
    TooManyLinks(u32),
    /// There is no such row.
    #[error("not found")]
    Missing,
    /// The new row would belong to a Frontdoor that was deleted.
    #[error("the Frontdoor {0} was deleted")]
    NoFrontdoor(FrontdoorId),
    /// The API account that writes was revoked meanwhile.
    #[error("the account was revoked")]
    ActorRevoked,
    /// A live share allows `source_cidr`, which would be outside of its tunnel's network.
    #[error("{source_cidr} of {with} is outside of {peer_cidr}")]
    SourceOutside { with: NamedRow, source_cidr: SourceCidr, peer_cidr: PeerCidr },
    /// A row that the new one refers to is missing or not live.
    #[error("{column} refers to no live row")]
    Reference { column: &'static Column },
    /// The row is being deleted, or is deleted.
    #[error("the status is {0}")]
    NotLive(Status),
    /// The row was changed since it was read: read it again.
    #[error("the row has changed since it was read")]
    Stale,
    /// Another holder of the gateway's link has taken over: nothing was written.
    #[error("the gateway is linked to another server")]
    Superseded,
    /// There are as many as there may be, in the Frontdoor, or in the whole organization.
    #[error("{used} of {limit} {kind}")]
    QuotaExceeded { frontdoor: Option<FrontdoorId>, kind: QuotaKind, limit: u32, used: u64 },
    /// An organization has as many tunnels as it may have beside others at a location.
    #[error("{used} of {limit} tunnels at {location}")]
    LocationShare { location: LocationId, limit: u64, used: u64 },
    /// All slots of the location are taken.
    #[error("the location has no free slot for another tunnel")]
    NoSlot,
    /// No address is left for the tunnel's load balancer.
    #[error("no load balancer pool has a free address that is outside of the site's network")]
    NoAddress,
    /// The database can't be used. The text is for the operator.
    #[error("{0}")]
    Open(String),
    /// A backup or an export. The text has the whole cause.
    #[error("the file cannot be read or written: {0}")]
    Archive(std::io::Error),
    #[error("can't make {} private to this user", path.display())]
    Files { path: PathBuf, source: std::io::Error },
    /// A row has a value that this version does not write.
    #[error("column {column} has an invalid value")]
    Corrupt { column: String },
    /// The text has the whole cause, for the log.
    #[error("{fault}; {0}", fault = DatabaseFault::of(.0))]
    Database(sqlx::Error),
    /// The transaction that held the write did not commit; other writes may have shared it.
    #[error("the database did not commit the write: {0}")]
    Commit(Arc<StoreError>),
    /// The answer to a COMMIT did not come: the write may have been made.
    #[error("the database did not confirm a commit; {0}")]
    Unconfirmed(sqlx::Error),
    /// The caller has stopped waiting: the write may have been made.
    #[error("the database did not answer in time")]
    Late,
    /// A step before the COMMIT took too long: the transaction is rolled back.
    #[error("the database did not answer in time; the write is rolled back")]
    RolledBack,
    /// A check that changes nothing had no answer of the database's disk.
    #[error("the database's disk did not answer in time")]
    DiskHangs,
}

/// No row can be read or written without the keys.
impl From<SealError> for StoreError {
    fn from(error: SealError) -> Self {
        Self::Open(error.to_string())
    }
}

impl StoreError {
    /// What is wrong with the database. It is `Other` for an error that is not the database's.
    pub fn fault(&self) -> DatabaseFault {
        match self {
            Self::Database(error) => DatabaseFault::of(error),
            Self::Commit(error) => error.fault(),
            Self::Unconfirmed(_) | Self::Late => DatabaseFault::Unconfirmed,
            Self::RolledBack => DatabaseFault::Late,
            Self::DiskHangs => DatabaseFault::DiskHangs,
            _ => DatabaseFault::Other,
        }
    }

    /// The error of a COMMIT. Its result is unknown unless the database has answered it.
    pub(crate) fn of_commit(self) -> Self {
        match self {
            Self::Database(error) if DatabaseFault::of(&error).is_unreachable() => Self::Unconfirmed(error),
            error => error,
        }
    }

    /// Another holder of the gateway's link has taken over: no later attempt succeeds.
    pub fn is_superseded(&self) -> bool {
        matches!(self, Self::Superseded)
    }

    /// The store was closed: no later attempt succeeds.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Database(error) => matches!(error, sqlx::Error::PoolClosed),
            Self::Commit(error) => error.is_closed(),
            _ => false,
        }
    }
}
