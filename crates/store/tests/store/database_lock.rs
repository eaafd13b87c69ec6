//! The lock that limits a PostgreSQL database to one server.

use crate::database::keys_in;
use futures_util::future::join_all;
use sqlx::{AnyConnection, Connection};
use std::{fs::Permissions, future::pending, os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
    sync::Notify,
    time::timeout,
};
use wicketgate_lab::postgres;
use wicketgate_store::{DatabaseLock, LockMode, Ownership, Store};

/// Ends the sessions that hold the lock, as a restart of the database would.
async fn break_connections(url: &str) {
    let mut other = AnyConnection::connect(url).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted \
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    // Sessions end asynchronously: the loop ends when none holds the lock.
    while !sqlx::query(end).fetch_all(&mut other).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_is_refused_until_the_first_is_gone() {
    let Some(url) = postgres::fresh().unwrap() else { return };
    let dir = TempDir::new().unwrap();
    let (store, lock) = Store::open_alone(&url, &keys_in(&dir)).await.unwrap();
    let mut lock = lock.unwrap();
    let refused = Store::open_alone(&url, &keys_in(&dir)).await.err().unwrap().to_string();
    assert!(refused.contains("another server uses this PostgreSQL database"), "{refused}");
    assert_eq!(lock.check().await.unwrap(), Ownership::Held);

    break_connections(&url).await;
    assert_eq!(lock.check().await.unwrap(), Ownership::Regained, "the server takes the lock again");
    assert!(DatabaseLock::take(&url, LockMode::Exclusive).await.is_err());

    break_connections(&url).await;
    let second = DatabaseLock::take(&url, LockMode::Exclusive).await.unwrap();
    assert_eq!(lock.check().await.unwrap(), Ownership::Lost);
    drop((lock, second));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_share_a_database_and_exclude_who_wants_it_alone() {
    let Some(url) = postgres::fresh().unwrap() else { return };
    let dir = TempDir::new().unwrap();
    let keys = keys_in(&dir);
    Store::open(&url, &keys).await.unwrap().close().await;
    let opened = join_all((0..3).map(|_| Store::open_beside(&url, &keys))).await;
    let mut servers: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
    for (_, lock) in &mut servers {
        assert_eq!(lock.check().await.unwrap(), Ownership::Held);
    }
    let refused = Store::open_alone(&url, &keys).await.err().unwrap().to_string();
    assert!(refused.contains("another server uses this PostgreSQL database"), "{refused}");

    break_connections(&url).await;
    for (_, lock) in &mut servers {
        assert_eq!(lock.check().await.unwrap(), Ownership::Regained, "each server takes the lock again");
        assert_eq!(lock.check().await.unwrap(), Ownership::Held);
    }
    assert!(Store::open_alone(&url, &keys).await.is_err());

    break_connections(&url).await;
    let _alone = DatabaseLock::take(&url, LockMode::Exclusive).await.unwrap();
    for (_, lock) in &mut servers {
        assert_eq!(lock.check().await.unwrap(), Ownership::Lost);
    }
    let refused = Store::open_beside(&url, &keys).await.err().unwrap().to_string();
    assert!(refused.contains("or a command that changes the whole database"), "{refused}");
    for (store, _) in servers {
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_start_at_once_bring_an_empty_database_to_their_schema() {
    let Some(url) = postgres::fresh().unwrap() else { return };
    let dir = TempDir::new().unwrap();
    std::fs::write(dir.path().join("secret-key"), format!("{}\n", "5a".repeat(32))).unwrap();
    std::fs::set_permissions(dir.path().join("secret-key"), Permissions::from_mode(0o600)).unwrap();
    let keys = keys_in(&dir);
    let opened = join_all((0..4).map(|_| Store::open_beside(&url, &keys))).await;
    for (store, mut lock) in opened.into_iter().map(Result::unwrap) {
        assert_eq!(lock.check().await.unwrap(), Ownership::Held);
        assert!(store.is_empty().await.unwrap());
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_a_newer_schema_waits_for_no_running_server_of_an_older_one() {
    let Some(url) = postgres::fresh().unwrap() else { return };
    let dir = TempDir::new().unwrap();
    let (store, _lock) = Store::open_beside(&url, &keys_in(&dir)).await.unwrap();
    // What a server of the version before would have found.
    let mut other = AnyConnection::connect(&url).await.unwrap();
    let older = "DELETE FROM _sqlx_migrations WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)";
    sqlx::query(older).execute(&mut other).await.unwrap();
    let refused = Store::open_beside(&url, &keys_in(&dir)).await.err().unwrap().to_string();
    assert!(refused.contains("older schema than this version's, and another server uses it"), "{refused}");
    store.close().await;
}

/// A proxy between the server and its database. Stalled connections stay open and forward nothing.
struct Line {
    dir: TempDir,
    url: String,
    stall: Arc<Notify>,
}

impl Line {
    fn to(url: &str) -> Self {
        let (socket, database) = url.strip_prefix("postgres://postgres@").unwrap().split_once('/').unwrap();
        let name = ".s.PGSQL.5432";
        let socket = format!("{}/{name}", socket.replace("%2F", "/"));
        let dir = TempDir::new().unwrap();
        let listener = UnixListener::bind(dir.path().join(name)).unwrap();
        let stall = Arc::new(Notify::new());
        let stalls = Arc::clone(&stall);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (socket, stalls) = (socket.clone(), Arc::clone(&stalls));
                tokio::spawn(async move {
                    let mut server = UnixStream::connect(socket).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        () = stalls.notified() => pending().await,
                    }
                });
            }
        });
        let host = dir.path().to_str().unwrap().replace('/', "%2F");
        Self { url: format!("postgres://postgres@{host}/{database}"), dir, stall }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_reconnect_detects_that_another_one_holds_the_lock() {
    let Some(url) = postgres::fresh().unwrap() else { return };
    let line = Line::to(&url);
    let (store, lock) = Store::open_alone(&line.url, &keys_in(&line.dir)).await.unwrap();
    let mut lock = lock.unwrap();
    // The pool keeps its connections, and new connections fail.
    std::fs::remove_file(line.dir.path().join(".s.PGSQL.5432")).unwrap();
    break_connections(&url).await;
    assert!(lock.check().await.is_err(), "no session holds the lock");
    let _second = DatabaseLock::take(&url, LockMode::Exclusive).await.unwrap();
    // The pool takes its connection back in a separate task. Checks fail until then and are repeated.
    let lost = async {
        loop {
            match lock.check().await {
                Ok(ownership) => break ownership,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    assert_eq!(timeout(Duration::from_secs(30), lost).await.unwrap(), Ownership::Lost);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_session_hangs_keeps_the_lock() {
    let Some(url) = postgres::fresh().unwrap() else { return };
    let line = Line::to(&url);
    let mut lock = DatabaseLock::take(&line.url, LockMode::Exclusive).await.unwrap().unwrap();
    line.stall.notify_waiters();
    assert_eq!(lock.check().await.unwrap(), Ownership::Regained);
    assert!(DatabaseLock::take(&url, LockMode::Exclusive).await.is_err(), "the lock was released");
}
