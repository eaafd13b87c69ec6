//! A database and an authority belong together: agents are known by the one, and have their certificates from the other.

use crate::serving::config;
use jiff::Timestamp;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::TcpListener;
use wicketgate_authority::Ca;
use wicketgate_server::{Server, ServerConfig};

async fn prepare(dir: &TempDir, change: impl FnOnce(&mut ServerConfig)) -> Result<(), String> {
    let mut config = config(dir.path(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    change(&mut config);
    Server::prepare(config).await.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_database_and_an_authority_that_do_not_belong_together_are_refused() {
    let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let other = Arc::new(Ca::load_or_create(elsewhere.path(), Timestamp::now()).unwrap());
    // An authority that has served, and an empty database.
    let empty = prepare(&dir, |config| config.has_served = true).await.unwrap_err();
    assert!(empty.contains("the database is empty") && empty.contains("wicketgate restore"), "{empty}");
    // A first start that failed has made an authority that has served nothing.
    prepare(&dir, |_| {}).await.unwrap();
    prepare(&dir, |config| config.has_served = true).await.unwrap();
    // A new authority, and a database that knows another.
    let fingerprint = other.fingerprint().to_string();
    let refused = prepare(&dir, |config| config.ca = other).await.unwrap_err();
    assert!(refused.contains(&fingerprint) && refused.contains("--new-authority"), "{refused}");
}
