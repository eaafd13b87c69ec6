//! Resetting open connections of a share. A task answers as a gateway would.

use crate::harness::{TOKEN, TestApp, at};
use axum::{
    body::Body,
    http::{HeaderName, Request, StatusCode},
};
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use wicketgate_link::ToGateway;

type Sources = Arc<Mutex<Vec<Option<String>>>>;

/// Answers requests to reset connections with how many there were before, and records their sources.
fn gateway(app: &TestApp) -> Sources {
    let (mut asked, rpc) = (app.asked.lock().unwrap().take().unwrap(), app.gateway.rpc.clone());
    let sources = Sources::default();
    let seen = Arc::clone(&sources);
    tokio::spawn(async move {
        while let Some(message) = asked.recv().await {
            if let ToGateway::CloseConnections { request, source, .. } = message {
                let mut seen = seen.lock().unwrap();
                rpc.connections_closed(request, seen.len() as u64);
                seen.push(source.map(|ip| ip.to_string()));
            }
        }
    });
    sources
}

/// The execution of the only action on the share that has this status.
async fn action(app: &TestApp, share: &Value, status: &str) -> Value {
    let id = share["id"].as_str().unwrap();
    let path = format!("executions?resourceId={id}&action=CLOSE_CONNECTIONS&status={status}");
    let found = app.get(&path).await.body;
    assert_eq!(found["totalElements"], 1, "{found}");
    found["content"][0].clone()
}

#[tokio::test]
async fn connections_are_reset_counted_and_recorded() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let path = format!("{}/connections/close", at("ipsec-shares", &share));
    let sources = gateway(&app);
    let all = app.post(&path, json!({})).await;
    assert_json_snapshot!("closed", app.shown(&all));
    assert_json_snapshot!(
        "recorded",
        app.shown(&app.get(&format!("executions/{}", all.body["executionId"].as_str().unwrap())).await)
    );
    let one = app.post(&path, json!({"source": "172.31.8.9"})).await;
    assert_eq!((one.status, &one.body["closed"]), (StatusCode::OK, &json!(1)));
    assert_eq!(*sources.lock().unwrap(), [None, Some("172.31.8.9".to_owned())]);
    // The share itself is as it was.
    assert_eq!(app.get(&at("ipsec-shares", &share)).await.body, share);
}

#[tokio::test]
async fn a_request_is_carried_out_once_for_a_key_and_only_in_the_expected_state() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let path = app.path(&format!("{}/connections/close", at("ipsec-shares", &share)));
    let sources = gateway(&app);
    let send = async |header: (HeaderName, &str)| {
        let request = Request::post(&path).header("authorization", format!("Bearer {TOKEN}"));
        app.send(request.header(header.0, header.1).body(Body::empty()).unwrap()).await
    };
    let key = HeaderName::from_static("idempotency-key");
    let first = send((key.clone(), "once")).await;
    let again = send((key, "once")).await;
    assert_eq!((again.status, &again.body), (StatusCode::OK, &first.body));
    assert_eq!(
        (&again.headers["idempotency-replayed"], sources.lock().unwrap().len()),
        (&"true".parse().unwrap(), 1)
    );
    let if_match = HeaderName::from_static("if-match");
    assert_eq!(send((if_match.clone(), "\"old\"")).await.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(send((if_match, "*")).await.status, StatusCode::OK);
    assert_eq!(sources.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn faults_are_refused_before_anything_is_reset() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let path = format!("{}/connections/close", at("ipsec-shares", &share));
    let sources = gateway(&app);
    for (body, message) in [
        (json!({"source": "fd00::1"}), "source must be an IPv4 address, like 172.31.8.9"),
        (json!({"source": 7}), "Value for source must be of type string"),
        (json!({"from": "10.0.0.1"}), "from is not a known property"),
    ] {
        let refused = app.post(&path, body).await;
        assert_eq!((refused.status, &refused.body["message"]), (StatusCode::BAD_REQUEST, &json!(message)));
    }
    assert_eq!(
        app.post("ipsec-shares/shr-1/connections/close", json!({})).await.status,
        StatusCode::NOT_FOUND
    );
    app.delete(&at("ipsec-shares", &share)).await;
    assert_eq!(app.post(&path, json!({})).await.status, StatusCode::CONFLICT);
    assert!(sources.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_gateway_that_is_gone_is_told_and_recorded_as_a_failure() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    drop(app.asked.lock().unwrap().take());
    let path = format!("{}/connections/close", at("ipsec-shares", &share));
    let answer = app.post(&path, json!({})).await;
    assert_json_snapshot!("no_gateway", app.shown(&answer));
    let failed = action(&app, &share, "FAILED").await;
    assert_eq!(failed["message"], "no gateway of location local answers, and connections may be open");
    assert!(failed["finishedAt"].is_string());
}
