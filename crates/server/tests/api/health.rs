use crate::harness::{TestApp, hello, spooled};
use axum::{body::Body, http::Request};
use insta::assert_json_snapshot;
use jiff::Timestamp;
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;
use wicketgate_lab::named;
use wicketgate_model::{EspMode, ShareId, TrafficDelta, TunnelId};
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

#[tokio::test]
async fn reports_that_are_not_recorded_are_named_after_half_a_minute() {
    let delta = TrafficDelta::new(ShareId::new(Uuid::nil()), TunnelId::new(Uuid::nil()));
    let ready_with_report_of = async |age| {
        let app = TestApp::new().await;
        // Nothing records it here.
        app.gateway.view.carried(&spooled(vec![delta.clone()]), Timestamp::now() - age);
        app.send(Request::get("/readyz").body(Body::empty()).unwrap()).await
    };
    let [soon, late] = [20, 31].map(Duration::from_secs);
    assert_eq!(ready_with_report_of(soon).await.status, 200);
    let answer = ready_with_report_of(late).await;
    let reason = "reports of the gateway (traffic) have waited to be recorded for more than 30 s: is the database slow?";
    assert_eq!((answer.status.as_u16(), &answer.body["reasons"]), (503, &json!([reason])));
    named("Traffic, or agents that connect, are shown late.", late);
}
