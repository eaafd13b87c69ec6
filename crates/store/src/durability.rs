//! Settings of PostgreSQL by which a write that was acknowledged can be lost. SQLite has none: the store syncs each commit.

use crate::{Result, StoreError, database_name::is_postgres};
use sqlx::{AnyConnection, Connection as _, Row as _};
use std::{fmt, time::Duration};
use tokio::time::timeout;

/// For a connection and a statement.
const WITHIN: Duration = Duration::from_secs(10);

/// The settings of the session, which its role and its database may have of their own.
const SELECT: &str = "SELECT current_setting('fsync'), current_setting('synchronous_commit')";

/// Its text (`Display`) is the setting, what it costs, and the cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurabilityRisk {
    /// `fsync` is off.
    Fsync,
    /// `synchronous_commit` is off.
    Commit,
}

impl DurabilityRisk {
    /// Those of the database at `place`, which is as for [`Store::open`](crate::Store::open). None of SQLite.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn read(place: &str) -> Result<Vec<Self>> {
        if !is_postgres(place) {
            return Ok(Vec::new());
        }
        // It may be the first connection of its process.
        sqlx::any::install_default_drivers();
        let read = async {
            let mut session = AnyConnection::connect(place).await?;
            let risks = Self::of(&mut session).await?;
            session.close().await?;
            Ok(risks)
        };
        timeout(WITHIN, read).await.map_err(|_| StoreError::RolledBack)?
    }

    /// Those of a session of PostgreSQL.
    pub(crate) async fn of(session: &mut AnyConnection) -> sqlx::Result<Vec<Self>> {
        let row = sqlx::query(SELECT).fetch_one(session).await?;
        let mut risks = Vec::new();
        for (at, risk) in [Self::Fsync, Self::Commit].into_iter().enumerate() {
            let value: String = row.try_get(at)?;
            risks.extend((value == "off").then_some(risk));
        }
        Ok(risks)
    }
}

impl fmt::Display for DurabilityRisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fsync => {
                "PostgreSQL does not sync its files (fsync is off), so that a crash of its host can lose or damage everything: \
                 set fsync = on, and restart it"
            }
            Self::Commit => {
                "PostgreSQL acknowledges commits before they are on the disk (synchronous_commit is off), so that its crash loses \
                 writes that were acknowledged: set synchronous_commit = on for this role and database"
            }
        })
    }
}
