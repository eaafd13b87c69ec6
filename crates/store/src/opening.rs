//! Opens a store: alone, or beside other servers of a PostgreSQL database.
//!
//! Invariant: the schema is changed, and secrets are sealed anew, only by a process that has the database alone.

use crate::{
    Result, SecretKeyFile, Store, StoreError,
    claim::RunningClaims,
    database::Database,
    database_lock::{DatabaseLock, LockMode},
    live_servers::LiveServers,
    sealing,
    wakes::Wakes,
    writer::Writer,
};
use sqlx::Row as _;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};
use tracing::info;
use uuid::Uuid;

/// For whoever has the database alone at a start: a migration takes seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts: a random part of it is added, so that two servers that start at once do not exclude each other for ever.
const RETRY: Duration = Duration::from_millis(200);

impl Store {
    /// Opens `postgres://…`, or the SQLite file at a path, which is created in a directory of its own if it is not
    /// there; then migrates, and seals what is there in clear.
    ///
    /// # Errors
    /// Also if the keys are not those of the database.
    pub async fn open(place: &str, keys: &SecretKeyFile) -> Result<Self> {
        Self::migrated(Database::connect(place).await?, keys).await
    }

    /// As [`Store::open`], for the only server of the database. A lock that is there has to be checked again and again.
    pub async fn open_alone(place: &str, keys: &SecretKeyFile) -> Result<(Self, Option<DatabaseLock>)> {
        let database = Database::connect(place).await?;
        // Before the migrations: they would change the database under the other server.
        let mut lock = DatabaseLock::take(place, LockMode::Exclusive).await?;
        if let Some(lock) = &mut lock {
            lock.pool = Some(database.readers.clone());
        }
        Ok((Self::migrated(database, keys).await?, lock))
    }

    /// Opens the PostgreSQL database at `url` for a server beside others. If its schema is an older one, it is migrated, which needs
    /// that no other server runs. The lock has to be checked again and again.
    ///
    /// # Errors
    /// Also if somebody else has the database alone, or the keys are not those of the database.
    pub async fn open_beside(url: &str, keys: &SecretKeyFile) -> Result<(Self, DatabaseLock)> {
        let mut database = Database::connect(url).await?;
        let until = Instant::now() + PATIENCE;
        loop {
            let refusal = match DatabaseLock::attempt(url, LockMode::Shared).await? {
                Some(mut lock) if is_prepared(&database).await? => {
                    // Nothing to do but to refuse a schema that is not this program's.
                    database.migrate().await?;
                    sealing::give_keys(&mut database, keys).await?;
                    lock.pool = Some(database.readers.clone());
                    let mut store = Self::of(database);
                    let Database { writers, commits, .. } = &store.database;
                    store.wakes = Some(Arc::new(Wakes::start(url, writers, commits, store.servers.own)));
                    return Ok((store, lock));
                }
                Some(mut lock) => {
                    lock.release().await;
                    match DatabaseLock::attempt(url, LockMode::Exclusive).await? {
                        Some(mut lock) => {
                            info!("the database is brought to this version's schema");
                            database.migrate().await?;
                            sealing::seal(&mut database, keys).await?;
                            lock.release().await;
                            continue;
                        }
                        None => {
                            "the database has an older schema than this version's, and another server uses it: stop all servers, \
                             and start those of one version"
                        }
                    }
                }
                None => LockMode::Shared.refusal(),
            };
            if Instant::now() >= until {
                return Err(StoreError::Open(refusal.to_owned()));
            }
            let random = Uuid::now_v7().as_bytes()[15];
            sleep(RETRY + RETRY * u32::from(random) / 64).await;
        }
    }

    pub(crate) async fn migrated(mut database: Database, keys: &SecretKeyFile) -> Result<Self> {
        database.migrate().await?;
        sealing::seal(&mut database, keys).await?;
        Ok(Self::of(database))
    }

    fn of(database: Database) -> Self {
        let (writer, claims) = (Writer::start(&database), RunningClaims::default());
        Self {
            writer,
            database,
            claims,
            servers: LiveServers::alone(),
            wakes: None,
            held: None,
            epochs: Arc::default(),
        }
    }
}

/// Whether this PostgreSQL database has this program's schema, or a later one, and no secret in clear.
async fn is_prepared(database: &Database) -> Result<bool> {
    let mut connection = database.readers.acquire().await?;
    let is_new = sqlx::query("SELECT to_regclass('_sqlx_migrations') IS NULL").fetch_one(&mut *connection);
    if is_new.await?.try_get(0)? {
        return Ok(false);
    }
    let newest = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations WHERE success";
    let schema: i64 = sqlx::query(newest).fetch_one(&mut *connection).await?.try_get(0)?;
    if schema < Database::newest_schema() {
        return Ok(false);
    }
    let clear = "SELECT are_left = 0 AND NOT EXISTS (SELECT 1 FROM clear_tunnel_key) FROM clear_remains";
    Ok(sqlx::query(clear).fetch_one(&mut *connection).await?.try_get(0)?)
}
