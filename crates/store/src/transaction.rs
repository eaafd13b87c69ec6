//! A transaction whose statements are bounded in time, each by itself.
//!
//! Invariant: a connection is used again only after its transaction has ended. Otherwise it is closed, which rolls the
//! transaction back unless its COMMIT was carried out.

use crate::{
    DatabaseFault, Result, StoreError,
    connections::{Connections, Leased},
    database_session::PoolGeneration,
    field::{Argument, Query},
    request_time::waited,
    row::{FromRow, opened},
    statement::query,
    write_health::WriteHealth,
};
use futures_util::TryStreamExt as _;
use sqlx::{AnyConnection, Executor as _, Row as _, SqlSafeStr};
use std::{io, sync::Arc, time::Duration};
use tokio::time::timeout;
use tracing::error;
use wicketgate_seal::SecretKeys;

/// For a statement: milliseconds, or a disk's sync. A host that is gone does not answer: TCP would wait for a quarter of an hour.
/// What takes longer, such as a backup or a migration, has a connection of its own. PostgreSQL may still carry out a COMMIT that
/// takes longer, and meanwhile its transaction keeps its locks, that of `revision` too: while a synchronous standby is missing or
/// the disk of the log hangs, writes of all servers fail. No timeout of PostgreSQL bounds a COMMIT.
const STATEMENT: Duration = Duration::from_secs(4);

/// For the next row of a long read: for the first one, PostgreSQL may have to sort all of them.
const ROW: Duration = Duration::from_secs(20);

/// Dropped, it is rolled back.
pub(crate) struct Transaction {
    connection: Leased,
    is_open: bool,
    /// A statement was given up before it was answered: none can follow it.
    is_lost: bool,
    health: WriteHealth,
    /// Of its pool.
    generation: PoolGeneration,
    keys: Arc<SecretKeys>,
}

impl Transaction {
    pub(crate) async fn begin(
        pool: &Connections,
        statement: &'static str,
        health: WriteHealth,
        keys: Arc<SecretKeys>,
    ) -> Result<Self> {
        health.begins();
        // Open from before the statement, which may be carried out after its timeout.
        let (connection, generation) = (pool.acquire().await?, pool.generation.clone());
        let mut begun = Self { connection, is_open: true, is_lost: false, health, generation, keys };
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
        let late = || Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()));
        let done = self.answered(async |db| db.execute(statement).await).await?.unwrap_or_else(late);
        self.noted(done).map(|_| ())
    }

    /// A statement about rows. A later one, or a COMMIT, fails at once if this one is not answered in time.
    async fn bounded<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut AnyConnection) -> sqlx::Result<T>,
    ) -> Result<T> {
        let done = self.answered(statement).await?.ok_or(StoreError::RolledBack)?;
        self.noted(done)
    }

    /// A server that has become a standby answers each write so: no connection to it is used again.
    fn noted<T>(&self, done: sqlx::Result<T>) -> Result<T> {
        let noted = self.health.noted(done);
        if noted.as_ref().is_err_and(|error| error.fault() == DatabaseFault::ReadOnly) {
            self.generation.end();
        }
        noted
    }

    /// `None`: it was not answered in time.
    async fn answered<T>(
        &mut self,
        statement: impl AsyncFnOnce(&mut AnyConnection) -> sqlx::Result<T>,
    ) -> Result<Option<sqlx::Result<T>>> {
        if self.is_lost {
            return Err(StoreError::RolledBack);
        }
        // Also if a caller stops to wait before the bound.
        self.is_lost = true;
        let done = waited(STATEMENT, statement(&mut self.connection)).await;
        self.is_lost = done.is_none();
        Ok(done)
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
        Ok(self.bounded(async |db| query.execute(db).await).await?.rows_affected())
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
        let found = self.bounded(async |db| query.fetch_optional(db).await).await?;
        found.map(|row| opened(&row, &self.keys)).transpose()
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
        if self.is_lost {
            return Err(StoreError::RolledBack);
        }
        let mut rows = query(sql, values)?.fetch(&mut *self.connection);
        loop {
            // Each row has the bound: all of them may take longer.
            self.is_lost = true;
            let next = timeout(ROW, rows.try_next()).await.map_err(|_| StoreError::RolledBack)?;
            self.is_lost = false;
            let Some(row) = next? else { break };
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
        self.rows(query(sql, values)?).await
    }

    /// As [`all`](Self::all), for a statement with its values.
    pub(crate) async fn rows<T: FromRow>(&mut self, query: Query) -> Result<Vec<T>> {
        let found = self.bounded(async |db| query.fetch_all(db).await).await?;
        found.iter().map(|row| opened(row, &self.keys)).collect()
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
