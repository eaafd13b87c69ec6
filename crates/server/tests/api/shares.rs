use crate::harness::{TOKEN, TestApp, at, error, share, with};
use axum::http::{Request, StatusCode};
use insta::assert_json_snapshot;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::{Duration, timeout};
use wicketgate_model::{Connection, ConnectionState, Generation, ObservedDelta, Status, TunnelObserved};

#[tokio::test]
async fn a_share_is_created_deployed_and_deleted() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let made = app.post("ipsec-shares", share(&tunnel, &site.z_id, "app-db", 8443)).await;
    assert_json_snapshot!("created", app.shown(&made));
    // The write wakes tasks that wait for changes.
    timeout(Duration::from_secs(1), app.gateway.view.woken()).await.unwrap();
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
    assert_eq!(gone.body["deletedBy"], "admin");
    assert_eq!(app.get("ipsec-shares").await.body["totalElements"], 0);
    assert_eq!(app.delete(&path).await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_share_whose_peer_was_just_lost_is_found_as_it_is_shown() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    app.settle(&share, Status::Deployed).await;
    let found = async |ready: bool| {
        app.get(&format!("ipsec-shares?ready={ready}")).await.body["totalElements"].as_u64().unwrap()
    };
    let is_ready = async || app.get(&at("ipsec-shares", &share)).await.body["ready"].clone();
    let report = |state| {
        let connection = Connection { state, ..Connection::down(Timestamp::now()) };
        let seen = TunnelObserved { ready: Some(Generation::FIRST), problem: None, connection };
        let tunnels = vec![(tunnel["id"].as_str().unwrap().parse().unwrap(), seen)];
        app.gateway.view.observe(1, ObservedDelta { tunnels, ..ObservedDelta::default() }, Timestamp::now());
    };
    report(ConnectionState::Up);
    assert_eq!((is_ready().await, found(true).await, found(false).await), (json!(true), 1, 0));
    report(ConnectionState::Down);
    assert_eq!((is_ready().await, found(true).await, found(false).await), (json!(false), 0, 1));
}

#[tokio::test]
async fn an_answer_can_be_put_unchanged() {
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
async fn a_patch_changes_only_the_named_properties() {
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
async fn a_taken_name_or_port_is_a_conflict() {
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
async fn all_faults_are_reported_at_once() {
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
        (json!({"ingressPort": 1.5}), "Value for ingressPort must be of type integer"),
        (json!({"ingressPort": "8443"}), "Value for ingressPort must be of type integer"),
        (json!({"name": 5}), "Value for name must be of type string"),
        (json!({"tags": []}), "Value for tags must be of type object"),
        (json!({"locationId": "elsewhere"}), "locationId must be the tunnel's location, local"),
        (json!({"ipsecTunnelId": "tnl-1"}), "ipsecTunnelId must be an id like tnl-…"),
        (json!({"colour": "red"}), "colour is not a known property"),
    ] {
        let body = with(share(&tunnel, &site.z_id, "app-db", 8443), change.clone());
        let answer = app.post("ipsec-shares", body).await;
        assert_eq!(answer.body, error("invalid_request", message), "{change}");
    }
}

#[tokio::test]
async fn a_write_to_a_deleted_resource_is_refused() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let made = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let path = at("ipsec-shares", &made);
    app.settle(&made, Status::Deployed).await;
    app.delete(&path).await;
    // Its name and its port stay taken until it is deleted, and are free at once after that.
    assert_eq!(
        app.post("ipsec-shares", share(&tunnel, &site.z_id, "app-db", 1)).await.status,
        StatusCode::CONFLICT
    );
    app.settle(&made, Status::Deleted).await;
    let mut shown = Vec::new();
    for refused in [
        app.put(&path, share(&tunnel, &site.z_id, "app-db", 8443)).await,
        app.patch(&path, json!({"name": "other"})).await,
        app.delete(&path).await,
    ] {
        shown.push(app.shown(&refused));
    }
    assert_json_snapshot!("too_late", shown);
    let again = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    assert_ne!(again["id"], made["id"]);
}

#[tokio::test]
async fn a_share_is_not_found_some_time_after_its_deletion() {
    let (app, tunnel, site) = TestApp::with_site().await;
    for (days, status) in [(29, StatusCode::OK), (31, StatusCode::NOT_FOUND)] {
        let made = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
        let path = at("ipsec-shares", &made);
        app.settle_at(&made, Status::Deleted, Timestamp::now() - SignedDuration::from_hours(24 * days)).await;
        assert_eq!(app.get(&path).await.status, status, "{days} days");
        assert_eq!(app.get(&format!("{path}/metrics")).await.status, status, "{days} days");
    }
    assert_eq!(app.get("ipsec-shares?status=DELETED").await.body["totalElements"], 1);
}

#[tokio::test]
async fn a_share_refers_to_live_resources_of_its_frontdoor() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let body = json!({"organizationId": "default", "defaultNamespaceName": "x", "ipsecSharesEnabled": true});
    let other = app.post("/frontdoor/v2", body).await.body;
    let there = |rest: &str| format!("/frontdoor/v2/{}/{rest}", other["id"].as_str().unwrap());
    let theirs = app.post(&there("ipsec-tunnels"), crate::harness::tunnel("theirs", 7)).await.body;
    let gone = app.post("ipsec-tunnels", crate::harness::tunnel("gone", 8)).await.body;
    app.delete(&at("ipsec-tunnels", &gone)).await;
    let mut shown = Vec::new();
    for (path, body) in [
        ("ipsec-shares", share(&theirs, &site.z_id, "a", 1)),
        ("ipsec-shares", share(&gone, &site.z_id, "a", 1)),
        (&there("ipsec-shares"), share(&theirs, &site.z_id, "a", 1)),
    ] {
        shown.push(app.shown(&app.post(path, body).await));
    }
    assert_json_snapshot!("elsewhere", shown);
    // The same port is free at another tunnel, and names are unique per Frontdoor.
    app.share(&tunnel, &site.z_id, "a", 1).await;
    let second = app.post("ipsec-tunnels", crate::harness::tunnel("b", 2)).await.body;
    app.share(&second, &site.z_id, "b", 1).await;
}

#[tokio::test]
async fn an_optional_property_may_be_null() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let nothing = json!({"locationId": null, "allowedSources": null, "maxConnections": null, "idleTimeoutSeconds": null,
                         "proxyProtocol": null, "tags": null, "envId": null});
    let mut body = share(&tunnel, &site.z_id, "app-db", 8443);
    body.as_object_mut().unwrap().extend(nothing.as_object().unwrap().clone());
    let made = app.post("ipsec-shares", body.clone()).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.text);
    assert!(
        nothing.as_object().unwrap().keys().all(|name| name == "locationId" || made.body.get(name).is_none())
    );
    let put = app.put(&at("ipsec-shares", &made.body), body).await;
    assert_eq!(put.status, StatusCode::ACCEPTED, "{}", put.text);
    // Required properties must not be null.
    for required in ["name", "ipsecTunnelId", "envZId", "envId", "target", "ingressPort"] {
        let refused = app.patch(&at("ipsec-shares", &made.body), json!({required: null})).await;
        let name = if required == "envId" { "envZId" } else { required };
        assert_eq!(refused.body["message"], format!("{name} is required"));
    }
}

/// Nothing is written for a caller that does not accept the answer's format.
#[tokio::test]
async fn an_unacceptable_format_is_refused_before_the_write() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let body = share(&tunnel, &site.z_id, "app-db", 8443).to_string();
    let request = Request::post(app.path("ipsec-shares"))
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "application/json")
        .header("accept", "application/xml");
    assert_eq!(app.send(request.body(body.into()).unwrap()).await.status, StatusCode::NOT_ACCEPTABLE);
    assert_eq!(app.get("ipsec-shares").await.body["totalElements"], 0);
}

#[tokio::test]
async fn a_changed_share_is_new_until_it_is_deployed_again() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let made = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let path = at("ipsec-shares", &made);
    app.settle(&made, Status::Error).await;
    for status in [Status::Deployed, Status::Error] {
        app.settle(&made, status).await;
        assert_eq!(app.get(&path).await.body["status"], status.as_str());
        let changed = app.patch(&path, json!({"tags": {"was": status.as_str()}})).await;
        assert_eq!((changed.status, &changed.body["status"]), (StatusCode::ACCEPTED, &json!("NEW")));
        assert_eq!(changed.body["statusDetail"]["reason"], "Pending");
    }
}
