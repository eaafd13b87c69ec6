//! Keeps the lock by which this server owns its PostgreSQL database, and ends the server when another one has it.

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use jiff::Timestamp;
use tokio::{sync::Mutex, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::error;
use wicketgate_store::{DatabaseLock, Installation, Ownership, Store};

use crate::background::{BackgroundTask, Outcome};

/// For running statements. The store is closed from the beginning of this time.
const CLOSE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct DatabaseOwnership {
    /// Shared with the server, which keeps it until its last write.
    pub(crate) lock: Arc<Mutex<DatabaseLock>>,
    pub(crate) store: Store,
    /// What the database was when it was opened.
    pub(crate) opened: Installation,
    /// The lock was regained, and what the database is was not found out since.
    pub(crate) is_in_doubt: bool,
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
        let why = match self.lock.lock().await.check().await? {
            Ownership::Held if !self.is_in_doubt => None,
            Ownership::Held | Ownership::Regained => {
                // Until it is known, and also if it cannot be asked now.
                self.is_in_doubt = true;
                let is_same =
                    self.store.schema_is_own().await? && self.store.installation().await? == self.opened;
                self.is_in_doubt = !is_same;
                (!is_same).then_some("the database was restored or migrated while it could not be reached")
            }
            Ownership::Lost => Some("another server uses the database"),
        };
        if let Some(why) = why {
            error!("{why}: this server stops");
            // Before anything else: what this server still has to write would overwrite what the other one writes.
            let _ = timeout(CLOSE, self.store.close()).await;
            self.superseded.cancel();
            self.stop.cancel();
            bail!(why);
        }
        Ok(Outcome::Done)
    }
}
