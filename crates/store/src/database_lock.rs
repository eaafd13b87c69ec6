//! The lock by which one server owns a PostgreSQL database. SQLite needs none: its file is in the data directory, which
//! has a lock of its own.
//!
//! Invariant: the lock is a session's advisory lock on a connection of its own, so PostgreSQL releases it when the
//! process dies. A server whose connection breaks takes the lock again, or learns that another server has it.

use crate::{
    Result, StoreError, connections::Connections, database_name::is_postgres, database_session::KEEPALIVE,
};
use sqlx::{AnyConnection, Connection as _, Executor as _, Row, any::AnyRow};
use std::{io, time::Duration};
use tokio::time::{sleep, timeout};

/// `wicketga` in ASCII: no other program uses it by chance.
const KEY: i64 = 0x7769_636b_6574_6761;
/// The longest wait for one step. A working database is faster.
const STEP: Duration = Duration::from_secs(5);
/// The number of sessions that are remembered: those of failed checks, while an old one may still have the lock.
const SESSIONS: usize = 32;
/// The pause after which a terminated session, which ends within milliseconds, is looked for again.
const RETRY: Duration = Duration::from_millis(50);

/// Released when it is dropped.
pub struct DatabaseLock {
    url: String,
    connection: Option<AnyConnection>,
    /// Sessions of this process that have, or may still have, the lock.
    sessions: Vec<Session>,
    /// Reports who has the lock when no connection can be made for it.
    pub(crate) pool: Option<Connections>,
}

/// A session of the database. The time tells sessions apart after a restart of the database, when process ids repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Session {
    pid: i32,
    /// `None`: it belongs to another user, and is not shown.
    started: Option<String>,
}

/// Whether this process still owns the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    Held,
    /// Another server has taken the database.
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
                "another server uses this PostgreSQL database: stop it first, or choose another database. If its host \
                 was lost, PostgreSQL releases the database within 20 s: start again then"
                    .into(),
            )),
        }
    }

    /// Checks the lock's connection, and takes the lock again if it is broken.
    ///
    /// # Errors
    ///
    /// The database does not answer, so nothing is known about the lock: call it again.
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

    /// Checks that the lock was held without a break since it was taken.
    ///
    /// # Errors
    /// Its connection is broken: another server may have used the database meanwhile.
    pub(crate) async fn was_held(&mut self) -> Result<()> {
        let connection = self.connection.as_mut();
        let answered = async { sqlx::query("SELECT 1").execute(connection?).await.ok() };
        timeout(STEP, answered).await.ok().flatten().map(drop).ok_or_else(|| {
            StoreError::Open(
                "the connection to PostgreSQL was interrupted, and another server may have used the database meanwhile: \
                 repeat the command"
                    .to_owned(),
            )
        })
    }

    /// Gives the database to who asks for it next. A lock that is dropped is free only when PostgreSQL has noticed that.
    pub(crate) async fn release(mut self) {
        let Some(connection) = &mut self.connection else { return };
        let free = sqlx::query("SELECT pg_advisory_unlock($1)").bind(KEY).execute(connection);
        let _ = timeout(STEP, free).await;
    }

    /// Whether a connection of the pool sees that another process has the lock.
    async fn is_taken(&mut self) -> bool {
        let Some(pool) = &mut self.pool else { return false };
        let seen = async { holder(&mut *pool.acquire().await?).await };
        let holder = timeout(STEP, seen).await;
        matches!(holder, Ok(Ok(Some(session))) if !self.sessions.contains(&session))
    }

    async fn acquire(&mut self) -> Result<Ownership> {
        timeout(STEP * 2, self.try_acquire())
            .await
            .unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()).into()))
    }

    async fn try_acquire(&mut self) -> Result<Ownership> {
        // It may be the first connection of its process.
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect(&self.url).await?;
        connection.execute(KEEPALIVE).await?;
        let own = "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        let session = session(&sqlx::query(own).fetch_one(&mut connection).await?)?;
        // Before the attempt: an answer that is lost does not make this session another server's.
        self.sessions.push(session.clone());
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
                    let end = sqlx::query("SELECT pg_terminate_backend($1)").bind(old.pid);
                    end.execute(&mut connection).await?;
                }
                Some(_) => return Ok(Ownership::Lost),
                None => {}
            }
            sleep(RETRY).await;
        }
    }
}

/// The session that has the lock. One without a start belongs to another user, or ends right now: it is looked for again.
async fn holder(connection: &mut AnyConnection) -> Result<Option<Session>> {
    let holder = current_holder(connection).await?;
    if holder.as_ref().is_none_or(|session| session.started.is_some()) {
        return Ok(holder);
    }
    sleep(RETRY).await;
    current_holder(connection).await
}

async fn current_holder(connection: &mut AnyConnection) -> Result<Option<Session>> {
    let row = sqlx::query(
        "SELECT l.pid, a.backend_start::text FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
         WHERE locktype = 'advisory' AND granted \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND classid::bigint = $1 AND objid::bigint = $2",
    )
    .bind(KEY >> 32)
    .bind(KEY & 0xffff_ffff)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(session).transpose()
}

fn session(row: &AnyRow) -> Result<Session> {
    Ok(Session { pid: row.try_get(0)?, started: row.try_get(1)? })
}

impl std::fmt::Debug for DatabaseLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseLock").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}
