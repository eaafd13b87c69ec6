//! Bodies that are made to break something: each is a 4xx that names its fault, and a short one.

use crate::harness::{Answer, TOKEN, TestApp, at, share, tunnel, with};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use serde_json::{Value, json};

/// However large what was sent is.
const LONGEST_ANSWER: usize = 20_000;

async fn send(app: &TestApp, method: Method, path: &str, body: impl Into<Body>) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(app.path(path))
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "application/json");
    let answer = app.send(request.body(body.into()).unwrap()).await;
    assert!(answer.text.len() < LONGEST_ANSWER, "{} bytes", answer.text.len());
    answer
}

async fn refused(app: &TestApp, body: impl Into<Body>, status: StatusCode, message: &str) {
    let answer = send(app, Method::POST, "ipsec-shares", body).await;
    assert_eq!(answer.status, status, "{}", answer.text);
    let said = answer.body["message"].as_str().unwrap();
    assert!(said.contains(message), "{said}");
}

#[tokio::test]
async fn what_reads_in_two_ways_is_refused() {
    let app = TestApp::new().await;
    let bad = StatusCode::BAD_REQUEST;
    refused(&app, r#"{"name": "a", "target": "b:1", "name": "c"}"#, bad, "name is there twice").await;
    refused(&app, r#"{"tags": {"a": "b", "\u0061": "c"}}"#, bad, "a is there twice").await;
    refused(&app, r#"{"name": [{"x": 1, "x": 1}]}"#, bad, "x is there twice").await;
}

#[tokio::test]
async fn depth_numbers_and_bytes_have_bounds() {
    let app = TestApp::new().await;
    let bad = StatusCode::BAD_REQUEST;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [200, 50_000] {
            let deep = format!("{{\"name\": {}1{}}}", open.repeat(depth), close.repeat(depth));
            refused(&app, deep, bad, "recursion limit").await;
        }
    }
    for number in ["1e999", "-1e999", &"9".repeat(1000)] {
        let answer = send(&app, Method::POST, "ipsec-shares", format!("{{\"ingressPort\": {number}}}")).await;
        assert_eq!(answer.status, bad);
        let said = answer.body["message"].as_str().unwrap();
        assert!(said.contains("ingressPort must be") || said.contains("number out of range"), "{said}");
    }
    for number in ["18446744073709551615", "-9223372036854775808", "1e308", "5e-324", "-0.0"] {
        let body = format!("{{\"ingressPort\": {number}}}");
        refused(&app, body, bad, "ingressPort").await;
    }
    for bytes in [&b"{\"name\": \"\xff\"}"[..], b"{\"name\": \"\xed\xa0\x80\"}", b"{\"\xc0\x80\": 1}"] {
        refused(&app, bytes.to_vec(), bad, "unicode").await;
    }
    refused(&app, r#"{"name": "\ud800"}"#, bad, "The body is not JSON").await;
    refused(&app, "{\"name\": \"a\u{0}b\"}", bad, "control character").await;
    refused(&app, vec![b' '; (1 << 20) + 1], StatusCode::PAYLOAD_TOO_LARGE, "1048576 bytes").await;
}

#[tokio::test]
async fn what_is_too_much_is_named_and_not_repeated() {
    let app = TestApp::new().await;
    let huge = "x".repeat((1 << 20) - 100);
    for body in [
        json!({"name": huge}),
        json!({"target": huge}),
        json!({ (huge.clone()): 1 }),
        json!({"tags": {(huge.clone()): "a"}}),
    ] {
        let answer = send(&app, Method::POST, "ipsec-shares", body.to_string()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
    let many: serde_json::Map<_, _> = (0..50_000).map(|n| (format!("p{n}"), json!(n))).collect();
    refused(&app, Value::Object(many).to_string(), StatusCode::BAD_REQUEST, "is not a known property").await;
    let list = json!({"allowedSources": vec!["x"; 100_000]});
    refused(&app, list.to_string(), StatusCode::BAD_REQUEST, "allowedSources").await;
}

/// Every text that a caller may write, with a NUL in it, and of a megabyte.
#[tokio::test]
async fn no_text_takes_a_nul_or_a_megabyte() {
    let (app, made, site) = TestApp::with_site().await;
    let share_body = share(&made, &site.z_id, "app-db", 8443);
    let frontdoor = json!({"organizationId": "acme", "defaultNamespaceName": "prod"});
    let environment = format!("environments/{}", site.environment);
    let (shares, tunnels) = ("ipsec-shares", "ipsec-tunnels");
    for (method, path, body, properties) in [
        (
            Method::POST,
            shares,
            share_body,
            &["name", "ipsecTunnelId", "envZId", "target", "locationId", "proxyProtocol"][..],
        ),
        (
            Method::POST,
            tunnels,
            tunnel("b", 2),
            &["name", "locationId", "peerPublicIp", "peerCidr", "peerId", "preSharedKey"],
        ),
        (Method::POST, "/frontdoor/v2", frontdoor, &["organizationId", "defaultNamespaceName"]),
        (Method::PATCH, &environment, json!({}), &["name"]),
        (Method::POST, "agents/enrollments", json!({}), &["environmentId"]),
        (Method::POST, &format!("{}/psk", at(tunnels, &made)), json!({}), &["preSharedKey"]),
        (Method::POST, "/frontdoor/v2/api-accounts", json!({"scopes": ["frontdoor.read"]}), &["name"]),
    ] {
        for property in properties {
            for text in ["a\u{0}b", &"a".repeat(1 << 19), "\u{202e}\u{7f}"] {
                let body = with(body.clone(), json!({ *property: text }));
                let answer = send(&app, method.clone(), path, body.to_string()).await;
                assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {property}: {}", answer.text);
                let said = answer.body["message"].as_str().unwrap();
                assert!(said.contains(property), "{path} {property}: {said}");
            }
        }
    }
}
