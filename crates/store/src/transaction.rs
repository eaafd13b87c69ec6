//! A transaction whose beginning and end are bounded in time.
//!
//! Invariant: a connection is used again only after its transaction has ended. Otherwise it is closed, which rolls the
//! transaction back unless its COMMIT was carried out.

use crate::{
    Result, SecretKeys, StoreError,
    connections::Connections,
    field::{Argument, Query},
    row::{FromRow, opened},
    statement::query,
    write_health::WriteHealth,
};
use futures_util::TryStreamExt as _;
use sqlx::{Any, AnyConnection, Executor as _, Row as _, SqlSafeStr, pool::PoolConnection};
use std::{io, sync::Arc, time::Duration};
use tokio::time::timeout;
use tracing::error;

/// For a statement that takes a disk's sync at most. A host that is gone does not answer: TCP would wait for a quarter
/// of an hour. A COMMIT that takes longer may be carried out, and its connection holds no other write back.
const STATEMENT: Duration = Duration::from_secs(4);

/// Dropped, it is rolled back.
pub(crate) struct Transaction {
    connection: PoolConnection<Any>,
    is_open: bool,
    health: WriteHealth,
    keys: Arc<SecretKeys>,
}

impl Transaction {
    pub(crate) async fn begin(
        pool: &Connections,
        statement: &'static str,
        health: WriteHealth,
        keys: Arc<SecretKeys>,
    ) -> Result<Self> {
        // Open from before the statement, which may be carried out after its timeout.
        let mut begun = Self { connection: pool.acquire().await?, is_open: true, health, keys };
        begun.carry_out(statement).await?;
        Ok(begun)
    }

    pub(crate) async fn commit(mut self) -> Result<()> {
        self.carry_out("COMMIT").await.map_err(StoreError::of_commit)?;
        self.is_open = false;
        self.health.committed();
        Ok(())
    }

    pub(crate) async fn rollback(mut self) -> Result<()> {
        self.carry_out("ROLLBACK").await?;
        self.is_open = false;
        Ok(())
    }

    /// A statement about the transaction itself.
    pub(crate) async fn carry_out(&mut self, statement: &'static str) -> Result<()> {
        let done = timeout(STATEMENT, self.connection.execute(statement)).await;
        let done = done.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())));
        self.health.noted(done).map(|_| ())
    }

    /// What seals and opens secrets.
    pub(crate) fn keys(&self) -> &SecretKeys {
        &self.keys
    }

    pub(crate) fn db(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }

    /// Runs a statement about values, and returns the number of rows that it changed.
    pub(crate) async fn execute(&mut self, sql: impl SqlSafeStr, values: &[&dyn Argument]) -> Result<u64> {
        self.run(query(sql, values)?).await
    }

    pub(crate) async fn run(&mut self, query: Query) -> Result<u64> {
        let done = query.execute(self.db()).await;
        Ok(self.health.noted(done)?.rows_affected())
    }

    /// The row that a statement returns, if there is one.
    pub(crate) async fn find<T: FromRow>(
        &mut self,
        sql: impl SqlSafeStr,
        values: &[&dyn Argument],
    ) -> Result<Option<T>> {
        self.row(query(sql, values)?).await
    }

    /// The row that a statement returns; every such statement returns one.
    pub(crate) async fn one<T: FromRow>(
        &mut self,
        sql: impl SqlSafeStr,
        values: &[&dyn Argument],
    ) -> Result<T> {
        self.find(sql, values).await?.ok_or(sqlx::Error::RowNotFound.into())
    }

    /// As [`find`](Self::find), for a statement with its values.
    pub(crate) async fn row<T: FromRow>(&mut self, query: Query) -> Result<Option<T>> {
        let found = query.fetch_optional(self.db()).await;
        self.health.noted(found)?.map(|row| opened(&row, &self.keys)).transpose()
    }

    /// Passes each row that a statement returns to `take`. Streamed: there may be very many rows, and a row
    /// takes several times the memory of what it is read as. A row that cannot be read is left out; returns whether all were
    /// read.
    pub(crate) async fn each<T: FromRow>(
        &mut self,
        sql: &'static str,
        values: &[&dyn Argument],
        mut take: impl FnMut(T) + Send,
    ) -> Result<bool> {
        let mut are_all = true;
        let mut rows = query(sql, values)?.fetch(&mut *self.connection);
        while let Some(row) = rows.try_next().await? {
            match opened(&row, &self.keys) {
                Ok(read) => take(read),
                Err(error @ StoreError::Corrupt { .. }) => {
                    let id = row.try_get::<String, _>("id").unwrap_or_default();
                    error!(id, %error, "a row of the database cannot be read, and is served as before or not at all: restore it");
                    are_all = false;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(are_all)
    }

    /// The rows that a statement returns.
    pub(crate) async fn all<T: FromRow>(
        &mut self,
        sql: impl SqlSafeStr,
        values: &[&dyn Argument],
    ) -> Result<Vec<T>> {
        let found = query(sql, values)?.fetch_all(self.db()).await;
        self.health.noted(found)?.iter().map(|row| opened(row, &self.keys)).collect()
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("is_open", &self.is_open).finish_non_exhaustive()
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.is_open {
            self.connection.close_on_drop();
        }
    }
}
