//! What the operator sees of the installation.

use crate::harness::TestApp;
use axum::http::{Method, StatusCode};
use insta::assert_json_snapshot;
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;
use wicketgate_store::{LastBackup, WriteContext};

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
    let context = WriteContext::new("local", created_at, Uuid::now_v7);
    made.record(&place, "/x", &context).await.unwrap();
    let after = app.get(path).await;
    assert_json_snapshot!(after.body);
    assert_ne!(before.headers["etag"], after.headers["etag"]);
    // An administrator of one customer learns nothing of the whole.
    let account = app.account(json!({"scopes": ["frontdoor.admin"]})).await;
    let refused = app.call_as(account["clientSecret"].as_str().unwrap(), Method::GET, path, None).await;
    assert_eq!((refused.status, &refused.body["error"]), (StatusCode::FORBIDDEN, &json!("not_authorized")));
}
