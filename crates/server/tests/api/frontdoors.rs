use crate::harness::{TestApp, at, tunnel};
use axum::http::{Method, StatusCode};
use insta::assert_json_snapshot;
use serde_json::json;
use wicketgate_model::Status;

#[tokio::test]
async fn a_frontdoor_is_created_changed_and_deleted() {
    let app = TestApp::new().await;
    assert_json_snapshot!("first", app.shown(&app.get("/frontdoor/v2").await));
    let made =
        app.post("/frontdoor/v2", json!({"organizationId": "acme", "defaultNamespaceName": "prod"})).await;
    assert_json_snapshot!("created", app.shown(&made));
    let path = format!("/frontdoor/v2/{}", made.body["id"].as_str().unwrap());
    let shares = app.get(&format!("{path}/ipsec-shares")).await;
    assert_json_snapshot!("not_enabled", app.shown(&shares));
    let patched = app.patch(&path, json!({"ipsecSharesEnabled": true})).await;
    assert_eq!((patched.status, &patched.body["ipsecSharesEnabled"]), (StatusCode::OK, &json!(true)));
    assert_eq!(app.get(&format!("{path}/ipsec-shares")).await.status, StatusCode::OK);
    let reader = app.account(json!({"organizationId": "acme", "scopes": ["frontdoor.read"]})).await;
    assert_eq!(app.delete(&path).await.status, StatusCode::NO_CONTENT);
    let gone = app.get(&path).await;
    assert_eq!((gone.status, &gone.body["error"]), (StatusCode::FORBIDDEN, &json!("not_found")));

    // What was done to it can still be read, by who administers it.
    let records = format!("{path}/executions");
    let kept = app.get(&records).await;
    let first = format!("{records}/{}", kept.body["content"][0]["id"].as_str().unwrap());
    assert_eq!((kept.status, app.get(&first).await.status), (StatusCode::OK, StatusCode::OK));
    let secret = reader["clientSecret"].as_str().unwrap();
    assert_eq!(app.call_as(secret, Method::GET, &records, None).await.status, StatusCode::FORBIDDEN);
    assert_eq!(app.get(&format!("{path}/ipsec-shares")).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_a_frontdoor_has_can_be_deleted_after_shares_were_switched_off() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let path = format!("/frontdoor/v2/{}", app.frontdoor);
    assert_eq!(app.patch(&path, json!({"ipsecSharesEnabled": false})).await.status, StatusCode::OK);
    for (collection, resource) in [("ipsec-shares", &share), ("ipsec-tunnels", &tunnel)] {
        let change = app.patch(&at(collection, resource), json!({"description": "x"})).await;
        assert_eq!((change.status, &change.body["error"]), (StatusCode::FORBIDDEN, &json!("not_authorized")));
        let deleted = app.delete(&at(collection, resource)).await;
        assert_eq!((deleted.status, &deleted.body["status"]), (StatusCode::ACCEPTED, &json!("DELETING")));
        app.settle(resource, Status::Deleted).await;
    }
}

#[tokio::test]
async fn faults_are_reported() {
    let app = TestApp::new().await;
    let body = json!({"organizationId": "a b", "defaultNamespaceName": "1x", "ipsecSharesEnabled": "yes"});
    assert_json_snapshot!("faults", app.shown(&app.post("/frontdoor/v2", body).await));
    let path = format!("/frontdoor/v2/{}", app.frontdoor);
    let moved = app.patch(&path, json!({"organizationId": "other"})).await;
    assert_eq!(moved.body["message"], "organizationId can't be changed");
    app.post("ipsec-tunnels", tunnel("a", 1)).await;
    assert_eq!(app.delete(&path).await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn locations_with_a_gateway_are_listed() {
    let app = TestApp::new().await;
    assert_json_snapshot!("locations", app.shown(&app.get("locations").await));
    assert_eq!(app.get("locations?page=1").await.body["content"], json!([]));
}
