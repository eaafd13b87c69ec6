//! A database and an authority belong together: agents are known by the one, and have their certificates from the other. What the
//! operator sees of both.

use crate::{harness::TestApp, serving::config};
use axum::http::{Method, StatusCode};
use insta::assert_json_snapshot;
use jiff::Timestamp;
use serde_json::json;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::TcpListener;
use wicketgate_authority::Ca;
use wicketgate_server::{Server, ServerConfig};
use wicketgate_store::LastBackup;

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

#[tokio::test]
async fn the_last_backup_is_shown_to_the_operator_only() {
    let path = "/frontdoor/v2/installation";
    let dir = TempDir::new().unwrap();
    let place = TestApp::place(&dir);
    let app = TestApp::on(&place, dir).await;
    let before = app.get(path).await;
    assert_eq!(before.body, json!({"version": env!("CARGO_PKG_VERSION")}));
    let created_at = "2026-11-30T12:00:00.5Z".parse().unwrap();
    let made = LastBackup { created_at, bytes: 184_320, version: "0.1.0-7-g1a2b3c4".to_owned() };
    made.record(&place).await.unwrap();
    let after = app.get(path).await;
    assert_json_snapshot!(after.body);
    assert_ne!(before.headers["etag"], after.headers["etag"]);
    // An administrator of one customer learns nothing of the whole.
    let account = app.account(json!({"scopes": ["frontdoor.admin"]})).await;
    let refused = app.call_as(account["clientSecret"].as_str().unwrap(), Method::GET, path, None).await;
    assert_eq!((refused.status, &refused.body["error"]), (StatusCode::FORBIDDEN, &json!("not_authorized")));
}
