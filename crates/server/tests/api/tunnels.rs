use crate::harness::{TestApp, at, tunnel, with};
use axum::http::{Method, StatusCode};
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use wicketgate_model::{PreSharedKey, Status, TunnelId};
use wicketgate_store::TunnelRow;

async fn row(app: &TestApp, tunnel: &Value) -> TunnelRow {
    let id: TunnelId = tunnel["id"].as_str().unwrap().parse().unwrap();
    app.store.tunnel(app.frontdoor, id).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_tunnel_lives_and_is_deleted() {
    let app = TestApp::new().await;
    let made = app.post("ipsec-tunnels", tunnel("customer-a", 1)).await;
    assert_json_snapshot!("created", app.shown(&made));
    let path = at("ipsec-tunnels", &made.body);
    assert_eq!(app.get(&path).await.body, made.body);
    app.settle(&made.body, Status::Deployed).await;
    assert_json_snapshot!("deployed", app.shown(&app.get_hal(&path).await));
    assert_json_snapshot!("deleting", app.shown(&app.delete(&path).await));
    assert_eq!(app.patch(&path, json!({"name": "b"})).await.status, StatusCode::CONFLICT);
    app.settle(&made.body, Status::Deleted).await;
    assert_eq!(app.get(&path).await.body["status"], "DELETED");
    assert_eq!(app.get("ipsec-tunnels").await.body["content"], json!([]));
}

#[tokio::test]
async fn a_tunnel_in_use_stays() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let path = at("ipsec-tunnels", &tunnel);
    assert_json_snapshot!("in_use", app.shown(&app.delete(&path).await));
    app.delete(&at("ipsec-shares", &share)).await;
    assert_eq!(app.delete(&path).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_key_is_written_and_not_read() {
    let app = TestApp::new().await;
    let key = "a key of more than twenty characters";
    let made = app.post("ipsec-tunnels", with(tunnel("a", 1), json!({"preSharedKey": key}))).await;
    assert!(!made.text.contains(key));
    assert_eq!(row(&app, &made.body).await.key.expose(), key);
    let path = at("ipsec-tunnels", &made.body);
    // What was read and is put back leaves the key alone.
    app.put(&path, app.get(&path).await.body).await;
    let kept = row(&app, &made.body).await;
    assert_eq!((kept.key.expose(), kept.previous_key), (key, None));
    let rotated = app.call(Method::POST, &format!("{path}/psk"), None).await;
    assert_eq!((rotated.status, &rotated.body["status"]), (StatusCode::ACCEPTED, &json!("NEW")));
    let new = row(&app, &made.body).await;
    assert_ne!(new.key.expose(), key);
    assert_eq!(new.previous_key.map(|(k, _)| k), key.parse::<PreSharedKey>().ok());
    let chosen = "another key of more than twenty letters";
    app.post(&format!("{path}/psk"), json!({"preSharedKey": chosen})).await;
    assert_eq!(row(&app, &made.body).await.key.expose(), chosen);
    let short = app.post(&format!("{path}/psk"), json!({"preSharedKey": "secret-x"})).await;
    assert_eq!(short.status, StatusCode::BAD_REQUEST);
    assert!(!short.text.contains("secret-x"));
}

#[tokio::test]
async fn the_identity_follows_the_address_unless_it_is_another() {
    let app = TestApp::new().await;
    let made = app.post("ipsec-tunnels", tunnel("a", 1)).await.body;
    let path = at("ipsec-tunnels", &made);
    let moved = app.patch(&path, json!({"peerPublicIp": "203.0.113.9"})).await;
    assert_eq!(moved.body["peerId"], "203.0.113.9");
    app.patch(&path, json!({"peerId": "vpn.example.org"})).await;
    let moved = app.patch(&path, json!({"peerPublicIp": "203.0.113.10"})).await;
    assert_eq!(moved.body["peerId"], "vpn.example.org");
    assert_eq!(app.patch(&path, json!({"peerId": null})).await.body["peerId"], "203.0.113.10");
}

#[tokio::test]
async fn faults_and_conflicts_are_named() {
    let app = TestApp::new().await;
    app.post("ipsec-tunnels", tunnel("a", 1)).await;
    let taken = app.post("ipsec-tunnels", tunnel("b", 1)).await;
    let name = app.post("ipsec-tunnels", tunnel("a", 2)).await;
    assert_json_snapshot!("conflicts", [app.shown(&taken), app.shown(&name)]);
    let other = app
        .post(
            "/frontdoor/v2",
            json!({"organizationId": "other", "defaultNamespaceName": "x", "ipsecSharesEnabled": true}),
        )
        .await;
    let foreign = app
        .post(&format!("/frontdoor/v2/{}/ipsec-tunnels", other.body["id"].as_str().unwrap()), tunnel("c", 1))
        .await;
    assert_eq!(foreign.status, StatusCode::CONFLICT);
    assert_eq!(foreign.body["message"], "peerPublicIp is taken by another IPsec tunnel");
    let body = json!({"name": "a b", "locationId": "mars", "peerPublicIp": "::1", "peerCidr": "10.1.2.3/16",
        "peerId": "a\"b", "preSharedKey": 5, "loadBalancerIp": "1.2.3.4", "mtu": 1400});
    assert_json_snapshot!("faults", app.shown(&app.post("ipsec-tunnels", body).await));
    // Two tunnels may have the same network.
    assert_eq!(app.post("ipsec-tunnels", tunnel("b", 3)).await.status, StatusCode::ACCEPTED);
}
