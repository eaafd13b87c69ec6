//! A transaction whose beginning and end are bounded in time.
//!
//! Invariant: a connection is used again only after its transaction has ended. Otherwise it is closed, which rolls the
//! transaction back unless its COMMIT was carried out.

use sqlx::{Any, AnyConnection, AnyPool, Executor as _, pool::PoolConnection};
use std::{
    io,
    ops::{Deref, DerefMut},
    time::Duration,
};
use tokio::time::timeout;

/// For a statement that takes a disk's sync at most. A host that is gone does not answer: TCP would wait for a quarter
/// of an hour.
const STATEMENT: Duration = Duration::from_secs(10);

/// Dropped, it is rolled back.
pub(crate) struct Transaction {
    connection: PoolConnection<Any>,
    is_open: bool,
}

impl Transaction {
    pub(crate) async fn begin(pool: &AnyPool, statement: &'static str) -> sqlx::Result<Self> {
        // Open from before the statement, which may be carried out after its timeout.
        let mut begun = Self { connection: pool.acquire().await?, is_open: true };
        begun.carry_out(statement).await?;
        Ok(begun)
    }

    pub(crate) async fn commit(mut self) -> sqlx::Result<()> {
        self.carry_out("COMMIT").await?;
        self.is_open = false;
        Ok(())
    }

    pub(crate) async fn rollback(mut self) -> sqlx::Result<()> {
        self.carry_out("ROLLBACK").await?;
        self.is_open = false;
        Ok(())
    }

    /// A statement about the transaction itself.
    pub(crate) async fn carry_out(&mut self, statement: &'static str) -> sqlx::Result<()> {
        let done = timeout(STATEMENT, self.connection.execute(statement)).await;
        done.map_err(|_| sqlx::Error::Io(io::ErrorKind::TimedOut.into()))?.map(|_| ())
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("is_open", &self.is_open).finish_non_exhaustive()
    }
}

impl Deref for Transaction {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.is_open {
            self.connection.close_on_drop();
        }
    }
}
