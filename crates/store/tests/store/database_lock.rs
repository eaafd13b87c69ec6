//! One server a PostgreSQL database.

use sqlx::{AnyConnection, Connection};
use wicketgate_lab::postgres;
use wicketgate_store::{DatabaseLock, Ownership, Store};

/// Ends the sessions that hold the lock, as a restart of the database would.
async fn break_connections(url: &str) {
    let mut other = AnyConnection::connect(url).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted \
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    sqlx::query(end).execute(&mut other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_is_refused_until_the_first_is_gone() {
    let Some(url) = postgres::fresh().unwrap() else { return };
    let (store, lock) = Store::open_alone(&url).await.unwrap();
    let mut lock = lock.unwrap();
    let refused = Store::open_alone(&url).await.err().unwrap().to_string();
    assert!(refused.contains("another server uses this PostgreSQL database"), "{refused}");
    assert_eq!(lock.check().await.unwrap(), Ownership::Held);

    break_connections(&url).await;
    assert_eq!(lock.check().await.unwrap(), Ownership::Held, "it is taken again");
    assert!(DatabaseLock::take(&url).await.is_err());

    break_connections(&url).await;
    let second = DatabaseLock::take(&url).await.unwrap();
    assert_eq!(lock.check().await.unwrap(), Ownership::Lost);
    drop((lock, second));
    store.close().await;
}
