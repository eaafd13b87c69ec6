//! The databases of the tests: SQLite, and for a second run of all tests PostgreSQL if Debian's package is installed.

use crate::site::Site;
use std::{future::Future, os::unix::fs::PermissionsExt as _};
use tempfile::TempDir;
use wicketgate_lab::postgres;
use wicketgate_store::{Result, SecretKeyFile, Store};

/// The address of a new database: on PostgreSQL, or in `data/` below this directory.
pub(crate) fn place(dir: &TempDir) -> String {
    let file = || dir.path().join("data").join("wicketgate.db").display().to_string();
    postgres::fresh().unwrap().unwrap_or_else(file)
}

/// Opens a database whose secret keys are in this directory.
pub(crate) async fn open(place: &str, dir: &TempDir) -> Result<Store> {
    Store::open(place, &keys_in(dir)).await
}

pub(crate) fn keys_in(dir: &TempDir) -> SecretKeyFile {
    SecretKeyFile::created_at(dir.path().join("secret-key"))
}

/// Runs a test on a fresh database.
pub(crate) fn on_each<F: Future<Output = ()>>(test: impl Fn(Store) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = TempDir::new().unwrap();
    runtime.block_on(async {
        let store = open(&place(&dir), &dir).await.unwrap();
        test(store.clone()).await;
        store.close().await;
    });
}

#[test]
fn everything_on_postgresql() {
    if !postgres::rerun("everything_on_postgresql").unwrap() {
        eprintln!("skipped: PostgreSQL or its system user is missing (apt-get install postgresql)");
    }
}

#[tokio::test]
async fn a_sqlite_database_is_private_and_persistent() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("data with #signs?").join("wicketgate.db");
    let place = path.to_str().unwrap();
    let store = open(place, &dir).await.unwrap();
    let site = Site::new(&store).await;
    let mode = |p: &std::path::Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for file in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    store.close().await;
    let again = open(place, &dir).await.unwrap();
    assert!(again.tunnel(site.frontdoor, site.tunnel).await.unwrap().is_some());
    again.close().await;
}
