//! The lock by which one server owns a PostgreSQL database. SQLite needs none: its file is in the data directory, which
//! has a lock of its own.
//!
//! Invariant: the lock is a session's advisory lock on a connection of its own, so PostgreSQL releases it when the
//! process dies. A server whose connection breaks takes the lock again, or learns that another server has it.

use crate::{Result, StoreError};
use sqlx::{AnyConnection, Connection as _, Row};
use std::{io, time::Duration};
use tokio::time::{sleep, timeout};

/// `wicketga` in ASCII: no other program uses it by chance.
const KEY: i64 = 0x7769_636b_6574_6761;
/// One step: longer than a database takes that answers.
const STEP: Duration = Duration::from_secs(5);
/// A session that was told to end is gone after some milliseconds.
const RETRY: Duration = Duration::from_millis(50);

/// Released when it is dropped.
pub struct DatabaseLock {
    url: String,
    connection: Option<AnyConnection>,
    /// The session that had the lock last.
    session: i32,
}

/// Whether this process still owns the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    Held,
    /// Another server has taken the database meanwhile.
    Lost,
}

impl DatabaseLock {
    /// Takes the lock of the database at `url`; `None` for SQLite.
    ///
    /// # Errors
    ///
    /// Another server has it, or the database does not answer.
    pub async fn take(url: &str) -> Result<Option<Self>> {
        if !is_postgres(url) {
            return Ok(None);
        }
        let mut lock = Self { url: url.to_owned(), connection: None, session: 0 };
        match lock.acquire().await? {
            Ownership::Held => Ok(Some(lock)),
            Ownership::Lost => Err(StoreError::Open(
                "another server uses this PostgreSQL database: stop it first, or choose another database"
                    .into(),
            )),
        }
    }

    /// Looks whether the connection still stands, and takes the lock again if it does not.
    ///
    /// # Errors
    ///
    /// The database does not answer, so that no other server can use it either; to be called again.
    pub async fn check(&mut self) -> Result<Ownership> {
        if let Some(connection) = &mut self.connection
            && matches!(timeout(STEP, sqlx::query("SELECT 1").execute(connection)).await, Ok(Ok(_)))
        {
            return Ok(Ownership::Held);
        }
        self.connection = None;
        self.acquire().await
    }

    async fn acquire(&mut self) -> Result<Ownership> {
        timeout(STEP * 2, self.try_acquire())
            .await
            .unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()).into()))
    }

    async fn try_acquire(&mut self) -> Result<Ownership> {
        let mut connection = AnyConnection::connect(&self.url).await?;
        loop {
            let is_ending = end_session(self.session, &mut connection).await?;
            let row = sqlx::query("SELECT pg_try_advisory_lock($1) AS taken, pg_backend_pid() AS session")
                .bind(KEY)
                .fetch_one(&mut connection)
                .await?;
            if row.try_get::<bool, _>("taken")? {
                (self.session, self.connection) = (row.try_get("session")?, Some(connection));
                return Ok(Ownership::Held);
            }
            if !is_ending {
                return Ok(Ownership::Lost);
            }
            sleep(RETRY).await;
        }
    }
}

/// Whether `session`, which this process had before, still has the lock. It is told to end, which takes a moment: a
/// session whose client is unreachable keeps its lock until TCP gives up.
async fn end_session(session: i32, connection: &mut AnyConnection) -> Result<bool> {
    if session == 0 {
        return Ok(false);
    }
    let told = sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted \
             AND pid = $1 AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
             AND classid::bigint = $2 AND objid::bigint = $3",
    )
    .bind(session)
    .bind(KEY >> 32)
    .bind(KEY & 0xffff_ffff)
    .fetch_optional(connection)
    .await?;
    Ok(told.is_some())
}

pub(crate) fn is_postgres(place: &str) -> bool {
    place.starts_with("postgres://") || place.starts_with("postgresql://")
}

impl std::fmt::Debug for DatabaseLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseLock").field("session", &self.session).finish_non_exhaustive()
    }
}
