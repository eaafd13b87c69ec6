//! Databases to test against: SQLite, and the same tests once more on PostgreSQL where Debian's is installed.

use std::future::Future;
use tempfile::TempDir;
use wicketgate_lab::postgres;
use wicketgate_store::Store;

/// Runs a test on a fresh database.
pub(crate) fn on_each<F: Future<Output = ()>>(test: impl Fn(Store) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let dir = TempDir::new().unwrap();
    let file = || dir.path().join("data").join("wicketgate.db").display().to_string();
    let place = postgres::fresh().unwrap().unwrap_or_else(file);
    runtime.block_on(async {
        let store = Store::open(&place).await.unwrap();
        test(store.clone()).await;
        store.close().await;
    });
}

#[test]
fn everything_on_postgresql() {
    if !postgres::rerun("everything_on_postgresql").unwrap() {
        eprintln!("skipped: PostgreSQL, or its user, is not installed (apt-get install postgresql)");
    }
}
