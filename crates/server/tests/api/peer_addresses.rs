//! The peerPublicIp of tunnels of two customers.

use crate::harness::{TestApp, at, tunnel, with};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

/// Another customer's Frontdoor, and the secret of its account.
async fn customer(app: &TestApp) -> (String, String) {
    let body = json!({"organizationId": "other", "defaultNamespaceName": "x", "ipsecSharesEnabled": true});
    let made = app.post("/frontdoor/v2", body).await;
    let scopes = ["frontdoor.read", "frontdoor.write", "frontdoor.admin"];
    let account = app.account(json!({"organizationId": "other", "scopes": scopes})).await;
    let frontdoor = format!("/frontdoor/v2/{}", made.body["id"].as_str().unwrap());
    (frontdoor, account["clientSecret"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_refusal_tells_nothing_of_the_tunnel_that_has_the_address() {
    let app = TestApp::new().await;
    let made = app.post("ipsec-tunnels", tunnel("their-secret-name", 1)).await.body;
    let (frontdoor, secret) = customer(&app).await;
    let path = format!("{frontdoor}/ipsec-tunnels");
    let create = async |n| app.call_as(&secret, Method::POST, &path, Some(tunnel("mine", n))).await;
    let own = create(2).await.body;
    let own = format!("{path}/{}", own["id"].as_str().unwrap());
    let moved = app.call_as(&secret, Method::PATCH, &own, Some(json!({"peerPublicIp": "203.0.113.1"}))).await;
    let id = made["id"].as_str().unwrap();
    let theirs =
        ["their-secret-name", id, &app.frontdoor.to_string(), made["loadBalancerIp"].as_str().unwrap()];
    for answer in [create(1).await, moved] {
        assert_eq!((answer.status, &answer.body["error"]), (StatusCode::CONFLICT, &json!("conflict")));
        assert!(theirs.iter().all(|word| !answer.text.contains(word)), "{}", answer.text);
    }
}

#[tokio::test]
async fn only_the_admin_token_takes_an_address() {
    let app = TestApp::new().await;
    let made = app.post("ipsec-tunnels", tunnel("a", 1)).await.body;
    let (frontdoor, secret) = customer(&app).await;
    let path = format!("{frontdoor}/ipsec-tunnels?takePeerAddress=");
    let create = async |value: &str| {
        let path = format!("{path}{value}");
        app.call_as(&secret, Method::POST, &path, Some(tunnel("b", 1))).await
    };
    let refused = create("true").await;
    assert_eq!((refused.status, &refused.body["error"]), (StatusCode::FORBIDDEN, &json!("not_authorized")));
    assert_eq!(create("false").await.status, StatusCode::CONFLICT);
    assert_eq!(create("yes").await.status, StatusCode::BAD_REQUEST);
    let taken = app.post(&format!("{path}true"), tunnel("b", 1)).await;
    assert_eq!(taken.status, StatusCode::ACCEPTED, "{}", taken.text);
    // The other way round, by each kind of change.
    let own = at("ipsec-tunnels", &made);
    let other = format!("{frontdoor}/ipsec-tunnels/{}", taken.body["id"].as_str().unwrap());
    let bodies: [(Method, &str, Value); 2] = [
        (Method::PATCH, &own, json!({"description": "ours"})),
        (Method::PUT, &other, with(taken.body.clone(), json!({"description": "theirs"}))),
    ];
    for (method, path, body) in bodies {
        let answer = app.call(method, &format!("{path}?takePeerAddress=true"), Some(body)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    }
    let lost = app.store.tunnel(app.frontdoor, made["id"].as_str().unwrap().parse().unwrap()).await.unwrap();
    assert!(lost.unwrap().peer_address_taken_at.is_some());
}
