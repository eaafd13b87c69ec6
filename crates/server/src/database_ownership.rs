//! Keeps the lock by which this server owns its PostgreSQL database, and ends the server when another one has it.

use std::time::Duration;

use anyhow::bail;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::error;
use wicketgate_store::{DatabaseLock, Ownership};

use crate::background::{BackgroundTask, Outcome};

/// See the module.
#[derive(Debug)]
pub(crate) struct DatabaseOwnership {
    pub(crate) lock: DatabaseLock,
    /// Another server has the database.
    pub(crate) superseded: CancellationToken,
    pub(crate) stop: CancellationToken,
}

impl BackgroundTask for DatabaseOwnership {
    const NAME: &'static str = "database-lock";
    /// A server that starts in this time after the lock's connection broke is noticed this late.
    const PERIOD: Duration = Duration::from_secs(1);
    /// Longer than a check has.
    const WITHIN: Duration = Duration::from_secs(30);

    async fn activate(&mut self, _now: Timestamp) -> anyhow::Result<Outcome> {
        if self.lock.check().await? == Ownership::Lost {
            error!("another server uses the database: this one stops");
            self.superseded.cancel();
            self.stop.cancel();
            bail!("another server uses the database");
        }
        Ok(Outcome::Done)
    }
}
