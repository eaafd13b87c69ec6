//! Servers of a database that wake each other.

use crate::{database::keys_in, site::Site};
use sqlx::{AnyConnection, Connection as _};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::timeout;
use wicketgate_store::Store;

/// The other server looks by itself only every second, and not in this test.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_wakes_the_other_servers_also_after_their_line_was_lost() {
    let Some(url) = wicketgate_lab::postgres::fresh().unwrap() else { return };
    let dir = TempDir::new().unwrap();
    let (one, _one) = Store::open_beside(&url, &keys_in(&dir)).await.unwrap();
    let (other, _other) = Store::open_beside(&url, &keys_in(&dir)).await.unwrap();
    let woken =
        async |store: &Store| timeout(PATIENCE, store.changed_elsewhere()).await.expect("it was not woken");
    // Each is woken when its line is open.
    woken(&one).await;
    woken(&other).await;
    // Of the other one, it may have been told meanwhile.
    while timeout(Duration::from_millis(100), one.changed_elsewhere()).await.is_ok() {}

    let site = Site::new(&one).await;
    woken(&other).await;
    timeout(PATIENCE, other.events_written()).await.expect("the event was not told");
    let own = timeout(Duration::from_millis(300), one.changed_elsewhere()).await;
    assert!(own.is_err(), "a server was woken by itself");

    let mut shell = AnyConnection::connect(&url).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()";
    assert_eq!(sqlx::query(end).fetch_all(&mut shell).await.unwrap().len(), 2);
    woken(&other).await;
    let share = site.share("another", 1000);
    one.create_share(site.frontdoor, &share, &crate::site::context()).await.unwrap();
    woken(&other).await;
    one.close().await;
    other.close().await;
}
