//! The lock by which one server owns a PostgreSQL database. SQLite needs none: its file is in the data directory, which
//! has a lock of its own.
//!
//! Invariant: the lock is a session's advisory lock on a connection of its own, so PostgreSQL releases it when the
//! process dies. A server whose connection breaks takes the lock again, or learns that another server has it.

use crate::{Result, StoreError};
use sqlx::{AnyConnection, AnyPool, Connection as _, Row};
use std::{io, time::Duration};
use tokio::time::{sleep, timeout};

/// `wicketga` in ASCII: no other program uses it by chance.
const KEY: i64 = 0x7769_636b_6574_6761;
/// One step: longer than a database takes that answers.
const STEP: Duration = Duration::from_secs(5);
/// Sessions that are remembered: of checks that failed one after another while an old one may still have the lock.
const SESSIONS: usize = 32;
/// A session that was told to end is gone after some milliseconds.
const RETRY: Duration = Duration::from_millis(50);

/// Released when it is dropped.
pub struct DatabaseLock {
    url: String,
    connection: Option<AnyConnection>,
    /// Sessions of this process that have, or may still have, the lock.
    sessions: Vec<i32>,
    /// Asked who has the lock when no connection can be made for it.
    pub(crate) pool: Option<AnyPool>,
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
        let mut lock = Self { url: url.to_owned(), connection: None, sessions: Vec::new(), pool: None };
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
    /// The database does not answer, or not whether another server has it; to be called again.
    pub async fn check(&mut self) -> Result<Ownership> {
        if let Some(connection) = &mut self.connection
            && matches!(timeout(STEP, sqlx::query("SELECT 1").execute(connection)).await, Ok(Ok(_)))
        {
            return Ok(Ownership::Held);
        }
        self.connection = None;
        let acquired = self.acquire().await;
        if acquired.is_err() && self.is_taken().await {
            return Ok(Ownership::Lost);
        }
        acquired
    }

    /// Whether another process certainly has the lock, as a connection of the pool sees it.
    async fn is_taken(&mut self) -> bool {
        let Some(pool) = &mut self.pool else { return false };
        let asked = async { holder(&mut *pool.acquire().await?).await };
        let holder = timeout(STEP, asked).await;
        matches!(holder, Ok(Ok(Some(session))) if !self.sessions.contains(&session))
    }

    async fn acquire(&mut self) -> Result<Ownership> {
        timeout(STEP * 2, self.try_acquire())
            .await
            .unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()).into()))
    }

    async fn try_acquire(&mut self) -> Result<Ownership> {
        let mut connection = AnyConnection::connect(&self.url).await?;
        let row = sqlx::query("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
        // Before it tries: an answer that is lost does not make this session another server's.
        let session = row.try_get(0)?;
        self.sessions.push(session);
        let excess = self.sessions.len().saturating_sub(SESSIONS);
        self.sessions.drain(..excess);
        loop {
            let taking = sqlx::query("SELECT pg_try_advisory_lock($1)").bind(KEY);
            if taking.fetch_one(&mut connection).await?.try_get(0)? {
                (self.sessions, self.connection) = (vec![session], Some(connection));
                return Ok(Ownership::Held);
            }
            match holder(&mut connection).await? {
                // A session whose client is unreachable keeps its lock until TCP gives up. Ending it takes a moment.
                Some(old) if self.sessions.contains(&old) => {
                    let end = sqlx::query("SELECT pg_terminate_backend($1)").bind(old);
                    end.execute(&mut connection).await?;
                }
                Some(_) => return Ok(Ownership::Lost),
                None => {}
            }
            sleep(RETRY).await;
        }
    }
}

/// The session that has the lock.
async fn holder(connection: &mut AnyConnection) -> Result<Option<i32>> {
    let row = sqlx::query(
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND classid::bigint = $1 AND objid::bigint = $2",
    )
    .bind(KEY >> 32)
    .bind(KEY & 0xffff_ffff)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

pub(crate) fn is_postgres(place: &str) -> bool {
    place.starts_with("postgres://") || place.starts_with("postgresql://")
}

impl std::fmt::Debug for DatabaseLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseLock").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}
