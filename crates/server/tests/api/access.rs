use crate::harness::{TOKEN, TestApp, at, tunnel};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use insta::assert_json_snapshot;
use serde_json::json;

async fn with_authorization(app: &TestApp, values: &[&str]) -> crate::harness::Answer {
    let mut request = Request::get(app.path("ipsec-shares"));
    for value in values {
        request = request.header("authorization", *value);
    }
    app.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_token_is_accepted_in_every_form() {
    let app = TestApp::new().await;
    let basic = "Basic YW55OndnYV90aGUtdG9rZW4tb2YtdGhlc2UtdGVzdHM=".to_owned();
    for form in [format!("Bearer {TOKEN}"), format!("bearer {TOKEN}"), format!("Basic any:{TOKEN}"), basic] {
        assert_eq!(with_authorization(&app, &[&form]).await.status, StatusCode::OK, "{form}");
    }
}

#[tokio::test]
async fn other_credentials_are_refused() {
    let app = TestApp::new().await;
    assert_json_snapshot!("missing", app.shown(&with_authorization(&app, &[]).await));
    assert_json_snapshot!("wrong", app.shown(&with_authorization(&app, &["Bearer wrong"]).await));
    assert_json_snapshot!("malformed", app.shown(&with_authorization(&app, &["Bearer"]).await));
    let good = format!("Bearer {TOKEN}");
    for malformed in [&["Basic %%%"][..], &["Digest x"], &["token"], &[&good, &good]] {
        let answer = with_authorization(&app, malformed).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{malformed:?}");
    }
    // Authentication is checked first: the answer does not depend on the path, the body or the format.
    let request =
        Request::post("/frontdoor/v2/x/ipsec-shares").header("accept", "text/html").body(Body::from("{"));
    assert_eq!(app.send(request.unwrap()).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_namespace_of_a_tunnel_is_shown_to_the_operator_alone() {
    let app = TestApp::new().await;
    let made = app.post("ipsec-tunnels", tunnel("a", 1)).await.body;
    assert_eq!(made["namespace"], "wicketgate-8812-0");
    let account = app.account(json!({"scopes": ["frontdoor.read", "frontdoor.write"]})).await;
    let own = app.get_as(account["clientSecret"].as_str().unwrap(), &at("ipsec-tunnels", &made)).await;
    assert_eq!((own.status, own.body.get("namespace")), (StatusCode::OK, None), "{}", own.text);
}

#[tokio::test]
async fn a_missing_resource_is_reported_as_missing() {
    let app = TestApp::new().await;
    let mut shown = Vec::new();
    for path in [
        "/frontdoor/v2/3d6d2b6e-6c7a-4a7f-8c3d-9a9d2e1f0b1c/ipsec-shares",
        "/frontdoor/v2/nonsense/ipsec-shares",
        "ipsec-shares/shr-1",
        "ipsec-shares/shr-00000000000000000000000000000000/metrics",
        "ipsec-tunnels/tnl-1/vpn-config",
        "environments/x",
        "agents/x",
        "executions/x",
        "nothing",
        "/frontdoor",
    ] {
        shown.push(app.shown(&app.get(path).await));
    }
    shown.push(app.shown(&app.delete("ipsec-shares").await));
    assert_json_snapshot!("not_there", shown);
    let garbage = app.get("ipsec-shares/%ff").await;
    assert_eq!(
        (garbage.status, &garbage.body["error"]),
        (StatusCode::BAD_REQUEST, &json!("invalid_request"))
    );
    for (method, path) in [
        (Method::PUT, "ipsec-shares/x"),
        (Method::PATCH, "ipsec-tunnels/x"),
        (Method::DELETE, "ipsec-tunnels/x"),
    ] {
        assert_eq!(app.call(method, path, Some(json!({}))).await.status, StatusCode::NOT_FOUND);
    }
}
