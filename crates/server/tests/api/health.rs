use crate::harness::{TestApp, hello};
use axum::{body::Body, http::Request};
use insta::assert_json_snapshot;
use jiff::Timestamp;
use serde_json::json;
use std::time::Duration;
use wicketgate_model::EspMode;
use wicketgate_server::LastRun;

#[tokio::test]
async fn readiness_depends_on_the_gateway_and_the_database() {
    let app = TestApp::unlinked(None).await;
    app.gateway.view.linked(hello(EspMode::Userland));
    let get = async |path: &str| app.send(Request::get(path).body(Body::empty()).unwrap()).await;
    assert_eq!(get("/livez").await.text, "ok\n");
    let starting = get("/readyz").await;
    let (at, took) = (Timestamp::now(), Duration::from_millis(2));
    app.tasks.record("event-feed", LastRun { at, took, error: None });
    app.reconciled(None);
    let ready = get("/readyz").await;
    let verbose = get("/readyz?verbose").await;
    let [feed, reconciler] = &verbose.body["tasks"].as_array().unwrap()[..] else {
        panic!("expected two tasks")
    };
    assert_eq!((&feed["name"], &reconciler["name"]), (&json!("event-feed"), &json!("reconciler")));
    assert_eq!((&reconciler["result"], &reconciler["durationMs"]), (&json!("OK"), &json!(2.0)));
    app.gateway.view.lost(Timestamp::now());
    app.reconciled(Some("a secret".to_owned()));
    let failed = get("/readyz?verbose").await;
    assert_eq!(failed.body["tasks"][1]["result"], "FAILED");
    assert!(!failed.text.contains("secret"));
    let offline = get("/readyz").await;
    app.store.close().await;
    let closed = get("/readyz").await;
    let all = [starting, ready, offline, closed];
    assert_json_snapshot!("readiness", all.each_ref().map(|answer| app.shown(answer)));
    let database = app.get("ipsec-shares").await;
    assert_json_snapshot!("no_database", app.shown(&database));
}
