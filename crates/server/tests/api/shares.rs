use crate::harness::{TestApp, at, share, with};
use axum::http::StatusCode;
use insta::assert_json_snapshot;
use serde_json::json;
use tokio::time::{Duration, timeout};
use wicketgate_model::Status;

#[tokio::test]
async fn a_share_lives_and_is_deleted() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let made = app.post("ipsec-shares", share(&tunnel, &site.z_id, "app-db", 8443)).await;
    assert_json_snapshot!("created", app.shown(&made));
    // Whoever waits for changes was woken.
    timeout(Duration::from_secs(1), app.wake.notified()).await.unwrap();
    let path = at("ipsec-shares", &made.body);
    let read = app.get(&path).await;
    assert_eq!(read.body, made.body);
    app.settle(&made.body, Status::Deployed).await;
    assert_json_snapshot!("deployed", app.shown(&app.get_hal(&path).await));
    assert_json_snapshot!("deleting", app.shown(&app.delete(&path).await));
    for refused in [
        app.delete(&path).await,
        app.patch(&path, json!({"name": "other"})).await,
        app.put(&path, made.body.clone()).await,
    ] {
        assert_eq!(refused.status, StatusCode::CONFLICT);
        assert_eq!(refused.body["error"], "conflict");
    }
    app.settle(&made.body, Status::Deleted).await;
    let gone = app.get(&path).await;
    assert_eq!((gone.status, &gone.body["status"]), (StatusCode::OK, &json!("DELETED")));
    assert!(gone.body["deletedAt"].is_string());
    assert_eq!(app.get("ipsec-shares").await.body["totalElements"], 0);
    assert_eq!(app.delete(&path).await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn what_was_read_may_be_put_back() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let made = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let path = at("ipsec-shares", &made);
    app.settle(&made, Status::Deployed).await;
    let read = app.get_hal(&path).await.body;
    let put = app.put(&path, with(read, json!({"target": "tcp://DB.internal:5432"}))).await;
    assert_json_snapshot!("put", app.shown(&put));
    let missing = app.put(&path, json!({"name": "app-db"})).await;
    assert_json_snapshot!("put_without_all", app.shown(&missing));
}

#[tokio::test]
async fn a_patch_changes_what_it_names() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let body = with(share(&tunnel, &site.z_id, "app-db", 8443), json!({"tags": {"team": "db", "tier": "1"}}));
    let made = app.post("ipsec-shares", body).await.body;
    let path = at("ipsec-shares", &made);
    let patch = json!({"ingressPort": 9443, "tags": {"tier": null, "site": "a"}, "status": "DEPLOYED"});
    assert_json_snapshot!("patched", app.shown(&app.patch(&path, patch).await));
    let removed = app.patch(&path, json!({"target": null})).await;
    assert_eq!(
        (removed.status, &removed.body["message"]),
        (StatusCode::BAD_REQUEST, &json!("target is required"))
    );
    let other = app.enrol().await;
    let moved = app.patch(&path, json!({"envId": other.z_id})).await;
    assert_eq!(moved.body["envZId"], json!(other.z_id));
    let both = app.patch(&path, json!({"envId": other.z_id, "envZId": site.z_id})).await;
    assert_eq!(both.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_is_taken_is_a_conflict() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let first = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let second = app.share(&tunnel, &site.z_id, "app-web", 443).await;
    let name = app.post("ipsec-shares", share(&tunnel, &site.z_id, "app-db", 1)).await;
    let port = app.post("ipsec-shares", share(&tunnel, &site.z_id, "other", 8443)).await;
    let patch = app.patch(&at("ipsec-shares", &second), json!({"ingressPort": 8443})).await;
    assert_json_snapshot!("conflicts", [app.shown(&name), app.shown(&port), app.shown(&patch)]);
    assert!(name.body["message"].as_str().unwrap().contains(first["id"].as_str().unwrap()));
}

#[tokio::test]
async fn all_faults_are_told_at_once() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let body = json!({
        "name": "-bad-", "ipsecTunnelId": "tnl-00000000000000000000000000000000", "envId": "nosuchenv0",
        "target": "nowhere", "ingressPort": "8443", "locationId": 7, "tags": {"a b": "x"}, "porrt": 1,
    });
    assert_json_snapshot!("faults", app.shown(&app.post("ipsec-shares", body).await));
    assert_json_snapshot!("empty", app.shown(&app.post("ipsec-shares", json!({})).await));
    for (change, message) in [
        (json!({"ingressPort": 0}), "ingressPort must be between 1 and 65535"),
        (json!({"ingressPort": 65536}), "ingressPort must be between 1 and 65535"),
        (json!({"ingressPort": 1e99}), "ingressPort must be between 1 and 65535"),
        (json!({"ingressPort": 1.5}), "Value for ingressPort must be of integer"),
        (json!({"ingressPort": "8443"}), "Value for ingressPort must be of integer"),
        (json!({"name": 5}), "Value for name must be of string"),
        (json!({"tags": []}), "Value for tags must be of object"),
        (json!({"locationId": "elsewhere"}), "locationId must be the tunnel's location, local"),
        (json!({"ipsecTunnelId": "tnl-1"}), "ipsecTunnelId must be an id like tnl-…"),
        (json!({"colour": "red"}), "colour is not a known property"),
    ] {
        let body = with(share(&tunnel, &site.z_id, "app-db", 8443), change.clone());
        let answer = app.post("ipsec-shares", body).await;
        assert_eq!(answer.body, json!({"error": "invalid_request", "message": message}), "{change}");
    }
}
