//! The sessions of PostgreSQL: their bounds, and which connections of the pool are used again.
//!
//! Invariant: PostgreSQL itself ends whatever a session of the pool does for longer than a request waits, also after this process
//! or its host is gone. Work that takes longer asks for [`UNBOUNDED`], or sets its own bounds in its transaction.

use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Connection as _, Executor as _, any::AnyPoolOptions};
use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::timeout;
use tracing::warn;
use wicketgate_system::Mutex;

use crate::durability::DurabilityRisk;

/// PostgreSQL's default of 100 connections is shared by all servers.
const CONNECTIONS: u32 = 16;
/// For the answer of an idle connection before it is used again: a round trip. A host that is gone does not answer.
const PING: Duration = Duration::from_secs(1);

/// No statement works for longer than its caller waits. PostgreSQL ends a transaction once its server does nothing in it for 3 s: the
/// process is stopped, or its host is gone. Transactions of other servers, which wait for its locks, wait for longer than that, and
/// then go on within the bounds of their callers. In milliseconds.
const BOUNDS: &str =
    "SET statement_timeout = 4000; SET lock_timeout = 3500; SET idle_in_transaction_session_timeout = 3000";

/// For a migration or a restore, whose statements take as long as there are rows.
pub(crate) const UNBOUNDED: &str = "SET statement_timeout = 0; SET lock_timeout = 0; \
    SET idle_in_transaction_session_timeout = 0";

/// Lets PostgreSQL end a session within 20 s after its client's host is lost. Otherwise it would keep its locks until TCP gives up,
/// two hours later.
pub(crate) const KEEPALIVE: &str = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; \
    SET tcp_keepalives_count = 3; SET tcp_user_timeout = 10000";

/// Decides which connections of a pool are used again: those that were made after the last sign that the database has moved.
/// Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct PoolGeneration {
    since: Arc<Mutex<Option<Instant>>>,
}

impl PoolGeneration {
    /// Every connection that is there leads to a server that has become a standby, or is gone: each is closed before its next use.
    pub(crate) fn end(&self) {
        *self.since.lock() = Some(Instant::now());
    }

    fn includes(&self, age: Duration) -> bool {
        self.since.lock().is_none_or(|since| age < since.elapsed())
    }

    /// Whether an idle connection of this age answers and is of this generation. One that does not answer in time ends the generation:
    /// the others lead to the same host, and each would take this time.
    async fn is_usable(&self, connection: &mut AnyConnection, age: Duration) -> bool {
        if !self.includes(age) {
            return false;
        }
        match timeout(PING, connection.ping()).await {
            Ok(answer) => answer.is_ok(),
            Err(_) => {
                self.end();
                false
            }
        }
    }
}

/// Connects to PostgreSQL, and warns of settings by which it may lose writes.
pub(crate) async fn open_pool(
    url: &str,
    generation: &PoolGeneration,
    acquire: Duration,
) -> sqlx::Result<AnyPool> {
    // The pool would retry until its timeout, and then report only the timeout.
    let tried = timeout(acquire, try_session(url)).await;
    for risk in tried.map_err(|_| sqlx::Error::Io(io::ErrorKind::TimedOut.into()))?? {
        warn!("{risk}");
    }
    options(generation.clone()).acquire_timeout(acquire).connect(url).await
}

async fn try_session(url: &str) -> sqlx::Result<Vec<DurabilityRisk>> {
    let mut session = AnyConnection::connect(url).await?;
    bound(&mut session).await?;
    let risks = DurabilityRisk::of(&mut session).await?;
    session.close().await?;
    Ok(risks)
}

fn options(generation: PoolGeneration) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(CONNECTIONS)
        // It has no bound, and is replaced by that of the generation.
        .test_before_acquire(false)
        .after_connect(|connection, _| Box::pin(bound(connection)))
        .before_acquire(move |connection, idle| {
            let generation = generation.clone();
            Box::pin(async move { Ok(generation.is_usable(connection, idle.age).await) })
        })
}

async fn bound(session: &mut AnyConnection) -> sqlx::Result<()> {
    // One round trip for each new connection.
    session.execute(AssertSqlSafe(format!("{BOUNDS}; {KEEPALIVE}"))).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Result, SecretKeyFile, Store};
    use sqlx::Row as _;
    use tempfile::TempDir;
    use wicketgate_lab::OwnPostgres;

    /// For PostgreSQL to end a statement.
    const BOUND: Duration = Duration::from_secs(30);

    async fn open(server: &OwnPostgres) -> (TempDir, Store) {
        let dir = TempDir::new().unwrap();
        let keys = SecretKeyFile::created_at(dir.path().join("secret-key"));
        let store = Store::open(&server.url, &keys).await.unwrap();
        (dir, store)
    }

    async fn settings(session: &mut AnyConnection) -> Vec<String> {
        let select = "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'), \
                      current_setting('idle_in_transaction_session_timeout'), current_setting('tcp_keepalives_idle'), \
                      current_setting('tcp_user_timeout')";
        let row = sqlx::query(select).fetch_one(session).await.unwrap();
        (0..5).map(|n| row.get(n)).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn sessions_of_the_pool_have_bounds_and_long_work_has_a_session_of_its_own() {
        let Some(server) = OwnPostgres::start().unwrap() else { return };
        let (_dir, store) = open(&server).await;
        let mut long = store.database.connection().await.unwrap();
        assert_eq!(settings(&mut long).await[..3], ["0", "0", "0"]);
        drop(long);
        let mut sessions = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut session = store.database.readers.acquire().await.unwrap();
            assert_eq!(settings(&mut session).await, ["4s", "3500ms", "3s", "5", "10000"]);
            sessions.push(session);
        }
        drop(sessions);
        store.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_caller_has_given_up_ends_in_the_database() {
        let Some(server) = OwnPostgres::start().unwrap() else { return };
        let (_dir, store) = open(&server).await;
        let read = store.read(async |db: &mut AnyConnection| -> Result<()> {
            sqlx::query("SELECT pg_sleep(600)::text").fetch_one(db).await?;
            Ok(())
        });
        assert!(timeout(Duration::from_secs(1), read).await.is_err());
        let select = "SELECT COUNT(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(600)%' \
                      AND pid <> pg_backend_pid()";
        let begin = Instant::now();
        while server.shell(select).unwrap() != "0" {
            assert!(begin.elapsed() < BOUND, "PostgreSQL works on it for {:?}", begin.elapsed());
        }
        store.close().await;
    }
}
