//! Resets of a tunnel's SAs, and changes of the key that end them. A task answers as a gateway would.

use crate::harness::{TestApp, at, hello};
use axum::http::StatusCode;
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use std::time::Duration;
use wicketgate_link::ToGateway;
use wicketgate_model::{EspMode, ResetMode, ResetScope, Status};

/// Answers each reset: an IKE SA is rekeyed, and nothing else works.
fn gateway(app: &TestApp) {
    let (mut asked, rpc) = (app.asked.lock().unwrap().take().unwrap(), app.gateway.rpc.clone());
    tokio::spawn(async move {
        while let Some(message) = asked.recv().await {
            if let ToGateway::Reset { request, scope, mode, .. } = message {
                let outcome = match (scope, mode) {
                    (ResetScope::Ike, ResetMode::Rekey) => Ok("the IKE SA was rekeyed".to_owned()),
                    _ => Err(format!("{scope} {mode}: the peer did not answer")),
                };
                rpc.reset_done(request, outcome);
            }
        }
    });
}

/// The execution when it has ended.
async fn ended(app: &TestApp, execution: &Value) -> Value {
    for _ in 0..1000 {
        let read = app.get(&at("executions", execution)).await.body;
        if read["status"] != "RUNNING" {
            return read;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not end");
}

#[tokio::test]
async fn a_reset_is_an_execution_with_the_outcome_that_was_seen() {
    let app = TestApp::new().await;
    let tunnel = app.post("ipsec-tunnels", crate::harness::tunnel("customer-a", 1)).await.body;
    let path = format!("{}/reset", at("ipsec-tunnels", &tunnel));
    gateway(&app);
    let good = app.post(&path, json!({"scope": "ike", "mode": "rekey"})).await;
    assert_json_snapshot!("accepted", app.shown(&good));
    let done = ended(&app, &good.body).await;
    assert_eq!((&done["status"], &done["message"]), (&json!("SUCCESS"), &json!("the IKE SA was rekeyed")));
    for (scope, mode) in [("child", "rekey"), ("ike", "restart"), ("child", "restart")] {
        let begun = app.post(&path, json!({"scope": scope, "mode": mode})).await;
        assert_eq!((begun.status, &begun.body["action"]), (StatusCode::ACCEPTED, &json!("RESET")));
        let failed = ended(&app, &begun.body).await;
        let message = format!("{scope} {mode}: the peer did not answer");
        assert_eq!((&failed["status"], &failed["message"]), (&json!("FAILED"), &json!(message)));
    }
    // The tunnel itself is as it was.
    assert_eq!(app.get(&at("ipsec-tunnels", &tunnel)).await.body, tunnel);
}

#[tokio::test]
async fn a_reset_that_cannot_be_is_refused_or_fails() {
    let app = TestApp::new().await;
    let tunnel = app.post("ipsec-tunnels", crate::harness::tunnel("customer-a", 1)).await.body;
    let (own, all) = (at("ipsec-tunnels", &tunnel), json!({"scope": "ike", "mode": "restart"}));
    let path = format!("{own}/reset");
    let faults = app.post(&path, json!({"scope": "esp", "when": "now"})).await;
    assert_json_snapshot!("faults", app.shown(&faults));
    let reply = app.post("ipsec-tunnels/tnl-1/reset", all.clone()).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    app.gateway.view.linked(hello(EspMode::Off));
    let without = app.post(&path, all.clone()).await;
    assert_eq!(without.body["message"], "The gateway runs without IPsec: there is no SA to reset");
    app.gateway.view.linked(hello(EspMode::Kernel));
    let off = app.patch(&own, json!({"enabled": false})).await;
    let disabled = app.post(&path, all.clone()).await;
    assert_eq!(disabled.status, StatusCode::CONFLICT, "{}", disabled.text);
    app.patch(&own, json!({"enabled": true})).await;
    drop(app.asked.lock().unwrap().take());
    let failed = ended(&app, &app.post(&path, all.clone()).await.body).await;
    assert_eq!(
        (&failed["status"], &failed["message"]),
        (&json!("FAILED"), &json!("no gateway of location local answers"))
    );
    app.settle(&off.body, Status::Deployed).await;
    app.delete(&own).await;
    assert_eq!(app.post(&path, all).await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_key_that_is_changed_with_a_cut_leaves_no_older_one() {
    let app = TestApp::new().await;
    let tunnel = app.post("ipsec-tunnels", crate::harness::tunnel("customer-a", 1)).await.body;
    let path = format!("{}/psk", at("ipsec-tunnels", &tunnel));
    let id = tunnel["id"].as_str().unwrap().parse().unwrap();
    let row = async || app.store.tunnel(app.frontdoor, id).await.unwrap().unwrap();
    let refused = app.post(&path, json!({"cut": true, "graceSeconds": 60})).await;
    let rule = "graceSeconds must be 0 or left out with cut: an older key could connect again";
    assert_eq!((refused.status, &refused.body["message"]), (StatusCode::BAD_REQUEST, &json!(rule)));
    app.post(&path, json!({})).await;
    assert_eq!(row().await.cut_generation, None);
    let kept = "the key that stays when older ones are cut";
    for body in [
        json!({"cut": true}),
        json!({"cut": true, "graceSeconds": 0}),
        json!({"cut": true, "preSharedKey": kept}),
    ] {
        // Leaves an older key.
        let rotated = app.post(&path, json!({"preSharedKey": kept})).await;
        assert!(rotated.body.get("previousKeyUntil").is_some(), "{}", rotated.text);
        let cut = app.post(&path, body).await;
        assert_eq!((cut.status, cut.body.get("previousKeyUntil")), (StatusCode::ACCEPTED, None));
        let row = row().await;
        assert_eq!(row.cut_generation, Some(row.generation));
    }
    // Later changes keep it.
    let cut = row().await.cut_generation;
    app.post(&path, json!({"cut": false})).await;
    app.patch(&at("ipsec-tunnels", &tunnel), json!({"description": "x"})).await;
    assert_eq!(row().await.cut_generation, cut);
}
