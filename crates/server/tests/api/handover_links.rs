//! Handover links: what the provider makes, lists and revokes.

use crate::harness::{TestApp, at};
use axum::http::{Method, Request, StatusCode};
use insta::assert_json_snapshot;
use serde_json::json;

#[tokio::test]
async fn a_link_is_made_listed_and_revoked() {
    let (app, tunnel, _) = TestApp::with_site().await;
    let links = format!("{}/handover-links", at("ipsec-tunnels", &tunnel));
    let body = json!({"description": "Acme, new firewall", "maxUses": 3, "passphrase": "correct horse"});
    let made = app.post(&links, body).await;
    assert_json_snapshot!("created", app.shown(&made));
    assert_eq!(made.headers["cache-control"], "no-store");
    let (token, url) = (made.body["token"].as_str().unwrap(), made.body["url"].as_str().unwrap());
    assert!(token.starts_with("wgh_") && token.len() == 47 && url == format!("/site#{token}"));

    // Defaults, and no body at all.
    let plain = app.call(Method::POST, &links, None).await.body;
    assert_eq!((&plain["maxUses"], &plain["hasPassphrase"]), (&json!(20), &json!(false)));
    let path = made.headers["location"].to_str().unwrap();
    assert_json_snapshot!("link", app.shown(&app.get_hal(path).await));
    let list = app.get(&links).await;
    assert_eq!(list.body["totalElements"], 2);
    assert!(!list.text.contains("wgh_") && !list.text.contains("horse") && !list.text.contains("pbkdf2"));
    assert_eq!(app.get(&format!("{links}?maxUses=3&sort=createdAt,desc")).await.body["totalElements"], 1);

    for _ in 0..2 {
        assert_eq!(app.delete(path).await.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(app.get(path).await.body["state"], "REVOKED");
    assert_json_snapshot!("records", app.shown(&app.get("executions?resourceType=handover-link").await));
}

#[tokio::test]
async fn faults_of_a_link_are_reported() {
    let (app, tunnel, _) = TestApp::with_site().await;
    let links = format!("{}/handover-links", at("ipsec-tunnels", &tunnel));
    let mut shown = Vec::new();
    for body in [
        json!({"maxUses": 0, "expiresAt": "2020-01-01T00:00:00Z", "passphrase": "short", "description": 7}),
        json!({"maxUses": 1001, "expiresAt": "2300-01-01T00:00:00Z", "token": "wgh_own"}),
        json!({"passphrase": "x".repeat(129), "expiresAt": "tomorrow"}),
    ] {
        shown.push(app.shown(&app.post(&links, body).await));
    }
    shown.push(app.shown(&app.get(&format!("{links}/lnk-0190f3a4c0de7000800000000000abcd")).await));
    app.delete(&at("ipsec-tunnels", &tunnel)).await;
    shown.push(app.shown(&app.post(&links, json!({})).await));
    assert_json_snapshot!("faults", shown);
}

#[tokio::test]
async fn a_repeated_request_makes_one_link_whose_token_is_not_kept() {
    let (app, tunnel, _) = TestApp::with_site().await;
    let links = format!("{}/handover-links", at("ipsec-tunnels", &tunnel));
    let post = || {
        let request = Request::post(app.path(&links))
            .header("authorization", format!("Bearer {}", crate::harness::TOKEN))
            .header("idempotency-key", "one")
            .header("content-type", "application/json");
        app.send(request.body("{}".into()).unwrap())
    };
    assert_eq!(post().await.status, StatusCode::CREATED);
    let again = post().await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert!(again.body["message"].as_str().unwrap().contains("secret"), "{}", again.text);
    assert_eq!(app.get(&links).await.body["totalElements"], 1);
}

#[tokio::test]
async fn many_links_with_a_passphrase_are_created_at_once_and_each_has_its_own() {
    let (app, tunnel, _) = TestApp::with_site().await;
    let links = format!("{}/handover-links", at("ipsec-tunnels", &tunnel));
    let create = |n| app.post(&links, json!({"passphrase": format!("correct horse {n}")}));
    let made = futures_util::future::join_all((0..4).map(create)).await;
    let open = async |n: usize, passphrase: String| {
        let body = json!({"token": made[n].body["token"], "passphrase": passphrase}).to_string();
        let request = Request::post("/site/open").header("content-type", "application/json");
        app.send(request.body(body.into()).unwrap()).await
    };
    for (n, made) in made.iter().enumerate() {
        assert_eq!((made.status, &made.body["hasPassphrase"]), (StatusCode::CREATED, &json!(true)));
        let other = open(n, format!("correct horse {}", (n + 1) % 4)).await;
        assert_eq!((other.status, &other.body["error"]), (StatusCode::FORBIDDEN, &json!("passphrase_wrong")));
        assert_eq!(open(n, format!("correct horse {n}")).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_tunnel_has_at_most_twenty_links_that_have_not_ended() {
    let (app, tunnel, _) = TestApp::with_site().await;
    let links = format!("{}/handover-links", at("ipsec-tunnels", &tunnel));
    let mut first = String::new();
    for n in 0..20 {
        let made = app.post(&links, json!({})).await;
        assert_eq!(made.status, StatusCode::CREATED, "{n}: {}", made.text);
        first = made.headers["location"].to_str().unwrap().to_owned();
    }
    let refused = app.post(&links, json!({})).await;
    assert_json_snapshot!("too_many", app.shown(&refused));
    // None waits for a passphrase to be computed: those of so many would not be in time.
    let with_passphrase = || app.post(&links, json!({"passphrase": "correct horse"}));
    for refused in futures_util::future::join_all((0..60).map(|_| with_passphrase())).await {
        assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.text);
    }
    assert_eq!(app.delete(&first).await.status, StatusCode::NO_CONTENT);
    assert_eq!(app.post(&links, json!({})).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_link_is_found_at_its_own_tunnel_only() {
    let (app, tunnel, _) = TestApp::with_site().await;
    let other = app.post("ipsec-tunnels", crate::harness::tunnel("customer-b", 2)).await.body;
    let links = format!("{}/handover-links", at("ipsec-tunnels", &tunnel));
    let made = app.post(&links, json!({})).await.body;
    let foreign = format!("{}/handover-links", at("ipsec-tunnels", &other));
    for method in [Method::GET, Method::DELETE] {
        let path = format!("{foreign}/{}", made["id"].as_str().unwrap());
        assert_eq!(app.call(method, &path, None).await.status, StatusCode::NOT_FOUND);
    }
    assert_eq!(app.get(&foreign).await.body["totalElements"], 0);
    assert_eq!(app.get(&links).await.body["content"][0]["state"], "ACTIVE");
}
