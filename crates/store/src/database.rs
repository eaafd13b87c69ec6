//! A database's connections, from opening it and migrating it to this version's schema to closing it.
//!
//! SQLite has one connection that writes and several that read; PostgreSQL has one pool. Only its owner can read a SQLite
//! database: it contains pre-shared keys.

use crate::{
    DatabaseFault, Result, StoreError,
    cache::Cache,
    connections::{Connections, Leased},
    database_name::is_postgres,
    database_session::{PoolGeneration, UNBOUNDED, open_pool},
    disk_room::DiskRoom,
    erasure::{self, Erasure},
    request_time::{READ, waited},
    transaction::Transaction,
    wakes::Commits,
    write_health::WriteHealth,
};
use sqlx::{
    AnyConnection, AssertSqlSafe, ConnectOptions, Connection, Executor, SqlSafeStr as _,
    any::AnyPoolOptions,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    sqlite::SqliteConnectOptions,
};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use wicketgate_seal::SecretKeys;

/// Connections that read, besides SQLite's one that writes: no more than cores help.
const SQLITE_READERS: u32 = 4;
/// A request that waits longer for a connection is better answered with 503.
const ACQUIRE: Duration = Duration::from_secs(4);

/// Version, description and SQL of each migration, in their order.
const MIGRATIONS: &[(i64, &str, &str)] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// What begins a transaction.
#[derive(Debug)]
struct Begins {
    /// That writes, and may take long.
    long: &'static str,
    /// That writes.
    write: &'static str,
    /// That writes, and follows all others that do so.
    in_turn: &'static str,
    snapshot: &'static str,
    /// A snapshot whose statements take as long as there are rows. Each of them is waited for with a bound, and taken with none.
    long_snapshot: &'static str,
}

/// SQLite locks everything when a write begins, so that all writes follow one another.
static SQLITE: Begins = Begins {
    long: "BEGIN IMMEDIATE",
    write: "BEGIN IMMEDIATE",
    in_turn: "BEGIN IMMEDIATE",
    snapshot: "BEGIN",
    long_snapshot: "BEGIN",
};

static POSTGRES: Begins = Begins {
    long: "BEGIN",
    write: "BEGIN",
    in_turn: "BEGIN; SELECT value FROM revision WHERE id = 1 FOR UPDATE",
    snapshot: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    long_snapshot: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0; \
                    SET LOCAL idle_in_transaction_session_timeout = 60000",
};

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Database {
    pub(crate) readers: Connections,
    pub(crate) writers: Connections,
    pub(crate) write_health: WriteHealth,
    pub(crate) cache: Arc<Cache>,
    /// `None`: a server has a disk of its own.
    disk: Option<DiskRoom>,
    pub(crate) commits: Commits,
    /// What seals and opens secrets: nothing until the database is migrated.
    pub(crate) keys: Arc<SecretKeys>,
    pub(crate) erasure: Erasure,
    begins: &'static Begins,
    /// Rows that are read to be changed must be locked. SQLite locks everything when a write begins.
    locks_rows: bool,
}

impl Database {
    /// Opens `postgres://…`, or the SQLite file at a path, which is created if it is not there.
    pub(crate) async fn connect(place: &str) -> Result<Self> {
        sqlx::any::install_default_drivers();
        if !is_postgres(place) {
            return Self::open_sqlite(Path::new(place)).await;
        }
        let generation = PoolGeneration::default();
        let pool = open_pool(place, &generation, ACQUIRE).await.map_err(|e| {
            StoreError::Open(format!("cannot open the PostgreSQL database {}: {e}", without_password(place)))
        })?;
        let pool = Connections::to_server(pool, generation);
        Ok(Self {
            readers: pool.clone(),
            writers: pool,
            write_health: WriteHealth::default(),
            cache: Arc::new(Cache::new(false)),
            disk: None,
            commits: Commits::default(),
            keys: Arc::default(),
            erasure: Erasure::not_needed(),
            begins: &POSTGRES,
            locks_rows: true,
        })
    }

    async fn open_sqlite(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path)
            .map_err(|source| StoreError::Files { path: path.to_owned(), source })?;
        keep_private(&path)?;
        let shown = path.display().to_string();
        let url = SqliteConnectOptions::new().filename(&path).create_if_missing(true).to_url_lossy();
        let options = |connections| {
            AnyPoolOptions::new()
                .max_connections(connections)
                .idle_timeout(None)
                .max_lifetime(None)
                // A file does not disconnect: a test before each use would double a read's cost.
                .test_before_acquire(false)
                .acquire_timeout(ACQUIRE)
                .after_connect(|connection, _| {
                    Box::pin(async move {
                        // A 202 promises a durable row: every commit is synced to the disk.
                        for pragma in [
                            erasure::BUSY,
                            // What is deleted or replaced is overwritten, and not only marked as free.
                            "PRAGMA secure_delete = ON",
                            // KiB of pages, of each connection; the system keeps the file in memory anyway.
                            "PRAGMA cache_size = -512",
                            "PRAGMA journal_mode = WAL",
                            "PRAGMA synchronous = FULL",
                            "PRAGMA foreign_keys = ON",
                        ] {
                            connection.execute(pragma).await?;
                        }
                        Ok(())
                    })
                })
        };
        let failed = |e| match DatabaseFault::of(&e) {
            DatabaseFault::Damaged => e.into(),
            _ => StoreError::Open(format!("cannot open the SQLite database {shown}: {e}")),
        };
        is_readable(url.as_str()).await.map_err(failed)?;
        // The writer first: it creates the file and its journal.
        let writers = options(1).connect(url.as_str()).await.map_err(failed)?;
        // Connected by the first read, after the migrations: a connection that knows the old schema reads rows with new
        // columns wrongly.
        let readers = options(SQLITE_READERS).connect_lazy(url.as_str()).map_err(failed)?;
        let writers = Connections::to_file(writers);
        Ok(Self {
            readers: Connections::to_file(readers),
            erasure: Erasure::start(writers.clone()),
            writers,
            write_health: WriteHealth::default(),
            cache: Arc::new(Cache::new(true)),
            disk: path.parent().map(DiskRoom::in_directory),
            commits: Commits::default(),
            keys: Arc::default(),
            begins: &SQLITE,
            locks_rows: false,
        })
    }

    /// The version of this program's schema.
    pub(crate) fn newest_schema() -> i64 {
        MIGRATIONS.last().map_or(0, |(version, ..)| *version)
    }

    pub(crate) async fn migrate(&self) -> Result<()> {
        self.migrate_to(Self::newest_schema()).await
    }

    /// Brings the database to an older schema than this program's, or to its own.
    pub(crate) async fn migrate_to(&self, schema: i64) -> Result<()> {
        let mut connection = self.connection().await?;
        migrator(self.has_one_writer(), schema).run(&mut *connection).await.map_err(|e| {
            StoreError::Open(match e {
                MigrateError::Execute(e) if DatabaseFault::of(&e) == DatabaseFault::Damaged => return e.into(),
                MigrateError::VersionMissing(v) => {
                    format!("the database was made by a newer version of this program (schema {v}): use that one")
                }
                MigrateError::VersionMismatch(v) => {
                    format!("the database has another schema {v} than this program: was it made by a development build?")
                }
                e => format!("can't bring the database to this version's schema: {e}"),
            })
        })
    }

    /// A connection for one long transaction, without the bounds of a [`Transaction`] and of a session. It is not used again.
    pub(crate) async fn connection(&self) -> Result<Leased> {
        let mut connection = self.writers.acquire().await?;
        if self.locks_rows {
            connection.close_on_drop();
            connection.execute(UNBOUNDED).await?;
        }
        Ok(connection)
    }

    /// What begins a long transaction that writes.
    pub(crate) fn begin_statement(&self) -> &'static str {
        self.begins.long
    }

    /// A connection of another process than the server's, to a database that is there.
    pub(crate) async fn connect_one(place: &str) -> Result<AnyConnection> {
        sqlx::any::install_default_drivers();
        AnyConnection::connect(&Self::url_of_existing(place)?)
            .await
            .map_err(|error| StoreError::Open(format!("cannot open the database: {error}")))
    }

    /// The driver's URL.
    fn url_of_existing(place: &str) -> Result<String> {
        if is_postgres(place) {
            return Ok(place.to_owned());
        }
        if !Path::new(place).exists() {
            return Err(StoreError::Open(format!("there is no SQLite database at {place}")));
        }
        Ok(SqliteConnectOptions::new().filename(place).to_url_lossy().into())
    }

    /// SQLite: one connection writes, and no other process does but `backup`, whose record no other row depends on.
    pub(crate) fn has_one_writer(&self) -> bool {
        !self.locks_rows
    }

    /// A transaction that waits for rows of one kind only, which it locks in one order: PostgreSQL runs it beside others.
    pub(crate) async fn begin(&self) -> Result<Transaction> {
        self.begin_write(self.begins.write).await
    }

    /// A transaction that follows all others which begin so, whichever server's: it locks rows of any kind, in any order,
    /// and nothing that it reads of them changes until it ends.
    pub(crate) async fn begin_in_turn(&self) -> Result<Transaction> {
        self.begin_write(self.begins.in_turn).await
    }

    async fn begin_write(&self, begin: &'static str) -> Result<Transaction> {
        let begun = self.transaction(&self.writers, begin, self.write_health.clone()).await?;
        self.cache.resume();
        Ok(begun)
    }

    /// A SELECT that locks its rows of `table` against other changes until the transaction ends. Rows that refer to them can
    /// still be inserted.
    pub(crate) fn locking(&self, select: &str, table: &str) -> AssertSqlSafe<String> {
        // Both are constants of this program.
        AssertSqlSafe(match self.locks_rows {
            true => format!("{select} FOR NO KEY UPDATE OF {table}"),
            false => select.to_owned(),
        })
    }

    /// A SELECT whose rows do not change until the transaction ends. Others can read them so, too.
    pub(crate) fn sharing(&self, select: &str) -> AssertSqlSafe<String> {
        // A constant of this program.
        AssertSqlSafe(if self.locks_rows { format!("{select} FOR SHARE") } else { select.to_owned() })
    }

    /// A transaction that reads, and sees nothing that is committed after its first statement.
    pub(crate) async fn snapshot(&self) -> Result<Transaction> {
        self.transaction(&self.readers, self.begins.snapshot, WriteHealth::default()).await
    }

    /// A snapshot for a read of rows of any number.
    pub(crate) async fn long_snapshot(&self) -> Result<Transaction> {
        self.transaction(&self.readers, self.begins.long_snapshot, WriteHealth::default()).await
    }

    async fn transaction(
        &self,
        pool: &Connections,
        begin: &'static str,
        health: WriteHealth,
    ) -> Result<Transaction> {
        Transaction::begin(pool, begin, health, Arc::clone(&self.keys)).await
    }

    /// Writes again all that is there, so that the files contain nothing else.
    pub(crate) async fn rewrite(&self) -> Result<()> {
        let mut connection = self.connection().await?;
        if self.locks_rows {
            for statement in
                ["VACUUM FULL clear_tunnel_key", "VACUUM FULL ipsec_tunnel", "VACUUM FULL idempotency"]
            {
                connection.execute(statement).await?;
            }
            return Ok(());
        }
        connection.execute("VACUUM").await?;
        drop(connection);
        self.erasure.request();
        Ok(())
    }

    pub(crate) async fn ping(&self) -> Result<()> {
        let mut connection = self.readers.acquire().await?;
        let revision = sqlx::query("SELECT value FROM revision").fetch_one(&mut *connection);
        waited(READ, revision).await.ok_or(StoreError::RolledBack)??;
        // The look at the disk takes time, and readers are few.
        drop(connection);
        match &self.disk {
            Some(disk) => disk.check().await,
            None => Ok(()),
        }
    }

    /// The error of a write by its cause: SQLite calls it a failure of the disk, too, that the disk has become read-only.
    pub(crate) async fn explained(&self, error: StoreError) -> StoreError {
        match &self.disk {
            Some(disk) if error.fault() == DatabaseFault::DiskFailed => {
                let cause = disk.check().await.err();
                cause.filter(|cause| cause.fault() == DatabaseFault::ReadOnly).unwrap_or(error)
            }
            _ => error,
        }
    }

    /// Waits for running statements, and closes all connections.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
    }
}

/// The databases have no common function for the names and values of a JSON object: a migration calls it `JSON_ROWS(r.tags)`.
fn migrator(is_sqlite: bool, schema: i64) -> Migrator {
    let json_rows = if is_sqlite { "json_each(r.tags)" } else { "json_each_text(CAST(r.tags AS JSON))" };
    let wanted = MIGRATIONS.iter().filter(|(version, ..)| *version <= schema);
    let migrations = wanted.map(|(version, what, sql)| {
        let sql = AssertSqlSafe(sql.replace("JSON_ROWS(r.tags)", json_rows)).into_sql_str();
        Migration::new(*version, (*what).into(), MigrationType::Simple, sql, false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// The pool would retry until its timeout, and then report only the timeout.
async fn is_readable(url: &str) -> sqlx::Result<()> {
    let mut first = AnyConnection::connect(url).await?;
    first.execute("SELECT COUNT(*) FROM sqlite_schema").await?;
    first.close().await
}

/// Host and database of a URL, without user and password.
fn without_password(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('?').next().unwrap_or_default();
    rest.rsplit_once('@').map_or(rest, |(_, place)| place)
}

/// Creates the file, or changes it to mode 0600. SQLite gives its journals the mode of the database.
fn keep_private(path: &Path) -> Result<()> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StoreError::Open(format!("cannot write the SQLite database {}: {source}", path.display()))
        }
        _ => StoreError::Files { path: path.to_owned(), source },
    };
    if let Some(dir) = path.parent().filter(|d| !d.exists()) {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    }
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(failed)?;
    let journal = |suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    for file in [path.to_owned(), journal("-wal"), journal("-shm")] {
        match fs::set_permissions(&file, fs::Permissions::from_mode(0o600)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            done => done.map_err(failed)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SecretKeyFile, Store};

    #[test]
    fn migrations_are_numbered_consecutively() {
        let versions: Vec<i64> = MIGRATIONS.iter().map(|(version, ..)| *version).collect();
        assert_eq!(versions, (1..).take(versions.len()).collect::<Vec<i64>>());
    }

    #[tokio::test]
    async fn the_database_of_a_newer_version_is_left_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("wicketgate.db").display().to_string();
        let keys = SecretKeyFile::created_at(dir.path().join("secret-key"));
        let store = Store::open(&file, &keys).await.unwrap();
        let mut tx = store.database.begin().await.unwrap();
        let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                     VALUES (9999, 'later', TRUE, x'00', 0)";
        sqlx::query(later).execute(tx.db()).await.unwrap();
        tx.commit().await.unwrap();
        store.close().await;
        let error = Store::open(&file, &keys).await.err().map(|e| e.to_string()).unwrap();
        assert!(error.contains("newer version of this program (schema 9999)"), "{error}");
    }

    #[tokio::test]
    async fn an_error_does_not_contain_the_password() {
        for url in [
            "postgres://u:geheim@127.0.0.1:1/wicketgate",
            "postgres://u:ge%geheim@127.0.0.1:1/wicketgate",
            "postgres://u:geheim@[127.0.0.1:1/wicketgate",
            "postgres://127.0.0.1:1/wicketgate?user=u&password=geheim",
            "postgres://u:geheim@127.0.0.1:x/wicketgate?sslmode=geheim",
        ] {
            let error = Store::open(url, &SecretKeyFile::existing("/nonexistent"))
                .await
                .err()
                .map(|e| format!("{e} {e:?}"))
                .unwrap();
            assert!(error.contains("127.0.0.1"), "{error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }
}
