//! A SQLite file that something else has damaged, or holds.

use crate::{
    database::{open, place},
    site::{Site, context},
};
use sqlx::{AnyConnection, Connection as _, Executor as _};
use std::{fs, time::Instant};
use tempfile::TempDir;
use wicketgate_store::DatabaseFault;

const PAGE: usize = 4096;

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_refused_with_the_cure() {
    let dir = TempDir::new().unwrap();
    let file = place(&dir);
    if file.contains("://") {
        return;
    }
    let store = open(&file, &dir).await.unwrap();
    Site::new(&store).await;
    store.close().await;
    let whole = fs::read(&file).unwrap();
    let mut beginning = whole.clone();
    beginning[..16].fill(0);
    let mut pages = whole.clone();
    pages[PAGE..].fill(0xff);
    for damaged in [beginning, pages, whole[..2 * PAGE].to_vec()] {
        fs::write(&file, damaged).unwrap();
        let refused = open(&file, &dir).await.map(drop).unwrap_err();
        assert_eq!(refused.fault(), DatabaseFault::Damaged, "{refused}");
        assert!(refused.to_string().contains("wicketgate restore"), "{refused}");
    }
    fs::write(&file, whole).unwrap();
    open(&file, &dir).await.unwrap().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_another_program_locks_is_told_and_writes_resume() {
    let dir = TempDir::new().unwrap();
    let file = place(&dir);
    if file.contains("://") {
        return;
    }
    let store = open(&file, &dir).await.unwrap();
    let site = Site::new(&store).await;
    let mut other = AnyConnection::connect(&format!("sqlite://{file}")).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let begin = Instant::now();
    let refused = store.create_share(site.frontdoor, &site.share("a", 80), &context()).await.unwrap_err();
    wicketgate_lab::named("503 on writes: the database is overloaded.", begin.elapsed());
    assert_eq!(refused.fault(), DatabaseFault::Busy, "{refused}");
    assert!(store.tunnel(site.frontdoor, site.tunnel).await.unwrap().is_some(), "reads go on");
    other.execute("ROLLBACK").await.unwrap();
    store.create_share(site.frontdoor, &site.share("a", 80), &context()).await.unwrap();
    other.close().await.unwrap();
    store.close().await;
}
