//! When the last backup was made. `wicketgate backup` is another process than the server, so it writes this by itself, in one
//! transaction, whether the server runs or not.
//!
//! Invariant: a restored database has no last backup until one is made of it. A backup belongs to the era in which it was made,
//! and each restore begins another.

use crate::{
    Action, Result, Store, StoreError, WriteContext,
    operator::{self, connect, write_recorded},
    row::{opened, rows},
    statement::query,
};
use jiff::Timestamp;
use sqlx::Connection as _;
use std::time::Duration;
use tokio::time::timeout;
use wicketgate_seal::SecretKeys;

/// For a connection and a statement.
const WITHIN: Duration = Duration::from_secs(10);

const SELECT: &str =
    "SELECT b.created_at, b.bytes, b.version FROM last_backup b JOIN installation i ON i.era = b.era";

/// The last one that ends counts, whatever the clocks say.
const RECORD: &str = "INSERT INTO last_backup (id, era, created_at, bytes, version) \
    SELECT 1, era, $1, $2, $3 FROM installation WHERE era >= 0 \
    ON CONFLICT (id) DO UPDATE SET era = excluded.era, created_at = excluded.created_at, bytes = excluded.bytes, \
    version = excluded.version";

rows! {
    /// A backup that is complete.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct LastBackup {
        /// The moment of its rows.
        pub created_at: Timestamp,
        /// The size of the file.
        pub bytes: u64,
        /// Of the program that made it.
        pub version: String,
    }
}

impl LastBackup {
    /// Reads it from the database at `place`, which is as for [`Store::open`] and must exist.
    ///
    /// # Errors
    /// The database does not answer, or has an older schema.
    pub async fn read(place: &str) -> Result<Option<Self>> {
        let read = async {
            let mut db = connect(place).await?;
            let row = query(SELECT, &[])?.fetch_optional(&mut db).await?;
            db.close().await?;
            row.map(|row| opened(&row, &SecretKeys::default())).transpose()
        };
        timeout(WITHIN, read).await.map_err(|_| StoreError::RolledBack)?
    }

    /// Writes it to the database at `place`, with an execution that says where it is.
    ///
    /// # Errors
    /// As [`LastBackup::read`].
    pub async fn record(&self, place: &str, file: &str, context: &WriteContext) -> Result<()> {
        let made = query(RECORD, &[&self.created_at, &self.bytes, &self.version])?;
        let message = format!("all rows, as of {}, to {file}", self.created_at);
        write_recorded(place, Some(made), &operator::record(Action::Backup, &message, context)).await
    }
}

impl Store {
    /// Of this era.
    pub async fn last_backup(&self) -> Result<Option<LastBackup>> {
        self.find(SELECT, &[]).await
    }
}
