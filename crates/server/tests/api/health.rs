use crate::harness::TestApp;
use axum::{body::Body, http::Request};
use insta::assert_json_snapshot;
use jiff::Timestamp;
use serde_json::json;
use std::time::Duration;
use wicketgate_server::LastRun;

#[tokio::test]
async fn readiness_depends_on_the_gateway_and_the_database() {
    let app = TestApp::new().await;
    let get = async |path: &str| app.send(Request::get(path).body(Body::empty()).unwrap()).await;
    assert_eq!(get("/livez").await.text, "ok\n");
    let ready = get("/readyz").await;
    let run = |error| LastRun { at: Timestamp::now(), took: Duration::from_millis(2), error };
    for task in ["event-feed", "reconciler"] {
        app.tasks.record(task, run(None));
    }
    let verbose = get("/readyz?verbose").await;
    let [feed, reconciler] = &verbose.body["tasks"].as_array().unwrap()[..] else {
        panic!("expected two tasks")
    };
    assert_eq!((&feed["name"], &reconciler["name"]), (&json!("event-feed"), &json!("reconciler")));
    assert_eq!((&reconciler["result"], &reconciler["durationMs"]), (&json!("OK"), &json!(2.0)));
    app.gateway.view.lost(Timestamp::now());
    app.tasks.record("reconciler", run(Some("a secret".to_owned())));
    let failed = get("/readyz?verbose").await;
    assert_eq!(failed.body["tasks"][1]["result"], "FAILED");
    assert!(!failed.text.contains("secret"));
    let offline = get("/readyz").await;
    app.store.close().await;
    let closed = get("/readyz").await;
    assert_json_snapshot!("readiness", [app.shown(&ready), app.shown(&offline), app.shown(&closed)]);
    let database = app.get("ipsec-shares").await;
    assert_json_snapshot!("no_database", app.shown(&database));
}
