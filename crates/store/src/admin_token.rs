//! The token with all scopes, of which the database has the SHA-256 alone.

use crate::{
    Result, Store, StoreError, database::Database, database_name::is_postgres, erasure::BUSY,
    statement::query,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::{Connection as _, Executor as _};
use std::time::Duration;
use tokio::time::timeout;

/// For a connection and a statement of a process beside the servers.
const WITHIN: Duration = Duration::from_secs(10);

const SET: &str = "INSERT INTO admin_token (id, sha256, set_at) VALUES (1, $1, $2) \
                   ON CONFLICT (id) DO UPDATE SET sha256 = excluded.sha256, set_at = excluded.set_at";
const KEEP: &str =
    "INSERT INTO admin_token (id, sha256, set_at) VALUES (1, $1, $2) ON CONFLICT (id) DO NOTHING";

impl Store {
    /// The SHA-256 of the admin token; `None` before the first start.
    pub async fn admin_token(&self) -> Result<Option<[u8; 32]>> {
        let row: Option<([u8; 32],)> = self.find("SELECT sha256 FROM admin_token WHERE id = 1", &[]).await?;
        Ok(row.map(|(sha256,)| sha256))
    }

    /// Makes it the admin token's, in place of the one before.
    pub async fn set_admin_token(&self, sha256: [u8; 32], at: Timestamp) -> Result<()> {
        self.write_admin_token(SET, sha256, at).await
    }

    /// Makes it the admin token's if there is none.
    pub async fn keep_admin_token(&self, sha256: [u8; 32], at: Timestamp) -> Result<()> {
        self.write_admin_token(KEEP, sha256, at).await
    }

    async fn write_admin_token(&self, sql: &'static str, sha256: [u8; 32], at: Timestamp) -> Result<()> {
        let written =
            self.settle(move |write| async move { write.tx.execute(sql, &[&sha256, &at]).await }.boxed());
        written.await.map(drop)
    }
}

/// Whether the database at `place`, which is as for [`Store::open`] and exists, is that of an `up`.
///
/// # Errors
/// As [`replace_admin_token`].
pub async fn is_of_up(place: &str) -> Result<bool> {
    let asked = async {
        let mut db = Database::connect_one(place).await?;
        let found =
            query("SELECT id FROM gateway WHERE in_process = 1", &[])?.fetch_optional(&mut db).await?;
        db.close().await?;
        Ok(found.is_some())
    };
    timeout(WITHIN, asked).await.map_err(|_| StoreError::RolledBack)?
}

/// As [`Store::set_admin_token`], of the database at `place`, which is as for [`Store::open`], exists, and may be in use.
///
/// # Errors
/// The database does not answer, or has an older schema.
pub async fn replace_admin_token(place: &str, sha256: [u8; 32], at: Timestamp) -> Result<()> {
    let replaced = async {
        let mut db = Database::connect_one(place).await?;
        if !is_postgres(place) {
            db.execute(BUSY).await?;
        }
        query(SET, &[&sha256, &at])?.execute(&mut db).await?;
        Ok(db.close().await?)
    };
    timeout(WITHIN, replaced).await.map_err(|_| StoreError::RolledBack)?
}
