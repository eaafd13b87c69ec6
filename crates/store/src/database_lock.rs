//! The lock of a PostgreSQL database: one process has it alone, or several servers share it. SQLite needs none: its file is in the
//! data directory, which has a lock of its own.
//!
//! Invariant: the lock is a session's advisory lock on a connection of its own, so PostgreSQL releases it when the
//! process dies. A server whose connection breaks takes the lock again, or learns that another server has it.

use crate::{
    Result, StoreError, connections::Connections, database_name::is_postgres, database_session::KEEPALIVE,
};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _, Row, any::AnyRow};
use std::{io, time::Duration};
use tokio::time::{sleep, timeout};

/// How a process uses the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// No other process uses it: `wicketgate up`, and all that changes its schema or replaces its rows.
    Exclusive,
    /// Other servers do, too.
    Shared,
}

impl LockMode {
    fn attempt(self) -> &'static str {
        match self {
            Self::Exclusive => "SELECT pg_try_advisory_lock($1)",
            Self::Shared => "SELECT pg_try_advisory_lock_shared($1)",
        }
    }

    fn release(self) -> &'static str {
        match self {
            Self::Exclusive => "SELECT pg_advisory_unlock($1)",
            Self::Shared => "SELECT pg_advisory_unlock_shared($1)",
        }
    }

    /// Who has the lock in a mode that excludes this one, as `mode` of `pg_locks` calls it.
    fn excluded_by(self) -> &'static str {
        match self {
            Self::Exclusive => "'ExclusiveLock', 'ShareLock'",
            Self::Shared => "'ExclusiveLock'",
        }
    }

    pub(crate) fn refusal(self) -> &'static str {
        match self {
            Self::Exclusive => {
                "another server uses this PostgreSQL database: stop it first, or choose another database. If its host \
                 was lost, PostgreSQL releases the database within 20 s: start again then"
            }
            Self::Shared => {
                "`wicketgate up`, a server that brings the schema to its version, or a command that changes the whole database \
                 uses this PostgreSQL database alone: wait for it, or stop it first, or choose another database. If its host was lost, PostgreSQL releases the database within 20 s: start \
                 again then"
            }
        }
    }
}

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
    mode: LockMode,
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
    /// It was not held for a time, in which others may have changed the database.
    Regained,
    /// Another process has the database, and this one's use of it is excluded.
    Lost,
}

impl DatabaseLock {
    /// Takes the lock of the database at `url`; `None` for SQLite.
    ///
    /// # Errors
    ///
    /// Another process has it in a mode that excludes this one, or the database does not answer.
    pub async fn take(url: &str, mode: LockMode) -> Result<Option<Self>> {
        if !is_postgres(url) {
            return Ok(None);
        }
        Self::attempt(url, mode).await?.map(Some).ok_or_else(|| StoreError::Open(mode.refusal().to_owned()))
    }

    /// As [`DatabaseLock::take`], of PostgreSQL. `None`: another process has it.
    pub(crate) async fn attempt(url: &str, mode: LockMode) -> Result<Option<Self>> {
        let mut lock = Self { url: url.to_owned(), mode, connection: None, sessions: Vec::new(), pool: None };
        Ok((lock.acquire().await? == Ownership::Held).then_some(lock))
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
        match self.acquire().await {
            Ok(Ownership::Held) => Ok(Ownership::Regained),
            Err(_) if self.is_taken().await => Ok(Ownership::Lost),
            acquired => acquired,
        }
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
    pub(crate) async fn release(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let free = sqlx::query(self.mode.release()).bind(KEY).execute(&mut connection);
        let _ = timeout(STEP, free).await;
    }

    /// Whether a connection of the pool sees that another process has the lock.
    async fn is_taken(&mut self) -> bool {
        let Some(pool) = &mut self.pool else { return false };
        let mode = self.mode;
        let seen = async { holders(&mut *pool.acquire().await?, mode).await };
        let holders = timeout(STEP, seen).await;
        matches!(holders, Ok(Ok(sessions)) if sessions.iter().any(|session| !self.sessions.contains(session)))
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
            let taking = sqlx::query(self.mode.attempt()).bind(KEY);
            if taking.fetch_one(&mut connection).await?.try_get(0)? {
                (self.sessions, self.connection) = (vec![session], Some(connection));
                return Ok(Ownership::Held);
            }
            let (own, others): (Vec<_>, Vec<_>) = holders(&mut connection, self.mode)
                .await?
                .into_iter()
                .partition(|holder| self.sessions.contains(holder));
            if !others.is_empty() {
                return Ok(Ownership::Lost);
            }
            // A session whose client is unreachable keeps its lock until TCP gives up. Ending it takes a moment.
            for old in own {
                let end = sqlx::query("SELECT pg_terminate_backend($1)").bind(old.pid);
                end.execute(&mut connection).await?;
            }
            sleep(RETRY).await;
        }
    }
}

/// The sessions that have the lock in a mode that excludes this one. One without a start belongs to another user, or ends right now:
/// they are looked for again.
async fn holders(connection: &mut AnyConnection, mode: LockMode) -> Result<Vec<Session>> {
    let holders = current_holders(connection, mode).await?;
    if holders.iter().all(|session| session.started.is_some()) {
        return Ok(holders);
    }
    sleep(RETRY).await;
    current_holders(connection, mode).await
}

async fn current_holders(connection: &mut AnyConnection, mode: LockMode) -> Result<Vec<Session>> {
    let select = format!(
        "SELECT l.pid, a.backend_start::text FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
         WHERE locktype = 'advisory' AND granted AND mode IN ({}) \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND classid::bigint = $1 AND objid::bigint = $2",
        mode.excluded_by()
    );
    let query = sqlx::query(AssertSqlSafe(select)).bind(KEY >> 32).bind(KEY & 0xffff_ffff);
    query.fetch_all(connection).await?.iter().map(session).collect()
}

fn session(row: &AnyRow) -> Result<Session> {
    Ok(Session { pid: row.try_get(0)?, started: row.try_get(1)? })
}

impl std::fmt::Debug for DatabaseLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseLock")
            .field("mode", &self.mode)
            .field("sessions", &self.sessions)
            .finish_non_exhaustive()
    }
}
