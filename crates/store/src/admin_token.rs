//! The token with all scopes, of which the database has the SHA-256 alone.

use crate::{
    Action, Result, Store, StoreError, WriteContext,
    database::Database,
    execution::insert_all,
    operator::{self, write_recorded},
    statement::query,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::Connection as _;
use std::time::Duration;
use tokio::time::timeout;

/// For a connection and a statement of a process beside the servers.
const WITHIN: Duration = Duration::from_secs(10);

const SELECT: &str = "SELECT sha256 FROM admin_token WHERE id = 1";
const SET: &str = "INSERT INTO admin_token (id, sha256, set_at) VALUES (1, $1, $2) \
                   ON CONFLICT (id) DO UPDATE SET sha256 = excluded.sha256, set_at = excluded.set_at";
const KEEP: &str =
    "INSERT INTO admin_token (id, sha256, set_at) VALUES (1, $1, $2) ON CONFLICT (id) DO NOTHING";

impl Store {
    /// The SHA-256 of the admin token; `None` before the first start.
    pub async fn admin_token(&self) -> Result<Option<[u8; 32]>> {
        let row: Option<([u8; 32],)> = self.find(SELECT, &[]).await?;
        Ok(row.map(|(sha256,)| sha256))
    }

    /// Makes it the admin token's, in place of the one before. If that was another one, it is recorded, with `why`.
    pub async fn set_admin_token(
        &self,
        sha256: [u8; 32],
        why: &'static str,
        context: &WriteContext,
    ) -> Result<()> {
        let replaced = operator::record(Action::ReplaceAdminToken, why, context);
        let at = context.at;
        self.write(context, move |write| {
            async move {
                let before: Option<([u8; 32],)> = write.tx.find(SELECT, &[]).await?;
                write.tx.execute(SET, &[&sha256, &at]).await?;
                match before {
                    Some((before,)) if before != sha256 => insert_all(&mut write.tx, &[replaced]).await,
                    _ => Ok(()),
                }
            }
            .boxed()
        })
        .await
    }

    /// Makes it the admin token's if there is none.
    pub async fn keep_admin_token(&self, sha256: [u8; 32], at: Timestamp) -> Result<()> {
        let written = self.settle(move |write| {
            async move { write.tx.execute(KEEP, &[&sha256, &at]).await.map(drop) }.boxed()
        });
        written.await
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
pub async fn replace_admin_token(place: &str, sha256: [u8; 32], context: &WriteContext) -> Result<()> {
    let set = query(SET, &[&sha256, &context.at])?;
    let replaced = operator::record(Action::ReplaceAdminToken, "the one before is refused", context);
    write_recorded(place, Some(set), &replaced).await
}
