use crate::harness::{Answer, TestApp};
use axum::http::{Method, Request, StatusCode};
use insta::assert_json_snapshot;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const ACCOUNTS: &str = "/frontdoor/v2/api-accounts";

fn path(account: &Value) -> String {
    format!("{ACCOUNTS}/{}", account["clientId"].as_str().unwrap())
}

fn secret(account: &Value) -> &str {
    account["clientSecret"].as_str().unwrap()
}

/// Another organization's Frontdoor.
async fn other_frontdoor(app: &TestApp) -> String {
    let body = json!({"organizationId": "other", "defaultNamespaceName": "prod", "ipsecSharesEnabled": true});
    app.post("/frontdoor/v2", body).await.body["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_account_has_access_until_it_is_revoked() {
    let app = TestApp::new().await;
    let body = json!({"name": "terraform, production", "scopes": ["frontdoor.write", "frontdoor.read"],
                      "frontdoorIds": [app.frontdoor], "expiresAt": "2100-01-01T00:00:00Z"});
    let made = app.post(ACCOUNTS, body).await;
    assert_json_snapshot!("created", app.shown(&made));
    assert_eq!(made.headers["cache-control"], "no-store");
    assert_json_snapshot!("account", app.shown(&app.get_hal(&path(&made.body)).await));
    assert_json_snapshot!("accounts", app.shown(&app.get(ACCOUNTS).await));

    let token = secret(&made.body);
    assert_eq!(app.get_as(token, "ipsec-tunnels").await.status, StatusCode::OK);
    let tunnel =
        app.call_as(token, Method::POST, "ipsec-tunnels", Some(crate::harness::tunnel("a", 1))).await;
    assert_eq!(tunnel.body["createdBy"], made.body["clientId"]);
    let executions = app.get("executions").await.body;
    assert_eq!(executions["content"].as_array().unwrap().last().unwrap()["actor"], made.body["clientId"]);

    assert_eq!(app.delete(&path(&made.body)).await.status, StatusCode::NO_CONTENT);
    assert_json_snapshot!("revoked", app.shown(&app.get_as(token, "ipsec-tunnels").await));
    assert_json_snapshot!("gone", app.shown(&app.get(&path(&made.body)).await));
    assert_eq!(app.delete(&path(&made.body)).await.status, StatusCode::NOT_FOUND);
    assert_eq!(app.get(ACCOUNTS).await.body["totalElements"], 0);
}

#[tokio::test]
async fn the_audit_record_names_the_account_and_its_creator() {
    let app = TestApp::new().await;
    let admin = app.account(json!({"scopes": ["frontdoor.admin", "frontdoor.read"]})).await;
    let body = json!({"name": "a", "scopes": ["frontdoor.read"]});
    let made = app.call_as(secret(&admin), Method::POST, ACCOUNTS, Some(body)).await.body;
    assert_eq!(made["createdBy"], admin["clientId"]);
    app.call_as(secret(&admin), Method::DELETE, &path(&made), None).await;
    assert_json_snapshot!("record", app.shown(&app.get("executions?resourceType=api-account").await));
}

#[tokio::test]
async fn a_secret_is_stored_as_a_hash_only() {
    let app = TestApp::new().await;
    let made = app.account(json!({})).await;
    let id = made["clientId"].as_str().unwrap().parse().unwrap();
    let row = app.store.api_account(id).await.unwrap().unwrap();
    assert!(!format!("{row:?}").contains(secret(&made)));
    let shown = [app.get(&path(&made)).await.text, app.get(ACCOUNTS).await.text];
    assert!(shown.iter().all(|text| !text.contains("wgs_") && !text.contains("Secret")));
}

#[tokio::test]
async fn an_expired_account_is_refused_as_expired() {
    let app = TestApp::new().await;
    let end = Timestamp::now() + SignedDuration::from_millis(1500);
    let made = app.account(json!({"expiresAt": end})).await;
    assert_eq!(app.get_as(secret(&made), "ipsec-shares").await.status, StatusCode::OK);
    let left = end.duration_since(Timestamp::now()) + SignedDuration::from_millis(10);
    tokio::time::sleep(left.try_into().unwrap_or_default()).await;
    let seconds = end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let timeless = |answer: &Answer| -> Value {
        serde_json::from_str(&app.shown(answer).to_string().replace(&seconds, "TIME")).unwrap()
    };
    assert_json_snapshot!("expired", timeless(&app.get_as(secret(&made), "ipsec-shares").await));
    let exchange = |secret: &str| {
        let client = format!("client_id={}&client_secret={secret}", made["clientId"].as_str().unwrap());
        let request =
            Request::post("/oauth/token").header("content-type", "application/x-www-form-urlencoded");
        app.send(request.body(format!("grant_type=client_credentials&{client}").into()).unwrap())
    };
    assert_json_snapshot!("expired_exchange", timeless(&exchange(secret(&made)).await));
    // Another secret learns nothing of the account.
    let other = exchange("wgs_other").await;
    assert!(other.status == StatusCode::UNAUTHORIZED && !other.text.contains("expired"), "{}", other.text);
}

#[tokio::test]
async fn faults_are_reported() {
    let app = TestApp::new().await;
    let other = other_frontdoor(&app).await;
    let mut shown = Vec::new();
    for body in [
        json!({}),
        json!({"name": "", "scopes": [], "frontdoorIds": [], "expiresAt": "tomorrow", "secret": "x"}),
        json!({"name": 7, "scopes": "frontdoor.read", "frontdoorIds": ["x"], "expiresAt": "2020-01-01T00:00:00Z"}),
        json!({"name": "a", "scopes": ["frontdoor.read", "root"], "organizationId": "a b"}),
        json!({"name": "a", "scopes": ["frontdoor.read"], "frontdoorIds": [app.frontdoor, other]}),
        json!({"name": "a", "scopes": ["frontdoor.read"], "frontdoorIds": ["3d6d2b6e-6c7a-4a7f-8c3d-9a9d2e1f0b1c"]}),
        json!({"name": "a", "scopes": ["frontdoor.read"], "organizationId": "default", "frontdoorIds": [other]}),
        json!({"name": "a", "scopes": ["frontdoor.read"]}),
    ] {
        shown.push(app.shown(&app.post(ACCOUNTS, body).await));
    }
    assert_json_snapshot!("faults", shown);
}

#[tokio::test]
async fn an_admin_manages_the_accounts_of_its_organization() {
    let app = TestApp::new().await;
    let other = other_frontdoor(&app).await;
    let here = app
        .account(json!({"organizationId": "default", "scopes": ["frontdoor.admin", "frontdoor.read"]}))
        .await;
    let there = app.account(json!({"frontdoorIds": [other], "scopes": ["frontdoor.admin"]})).await;
    assert_eq!(there["organizationId"], "other");

    let all = app.get_as(secret(&here), ACCOUNTS).await.body;
    assert_eq!((&all["totalElements"], &all["content"][0]["clientId"]), (&json!(1), &here["clientId"]));
    for method in [Method::GET, Method::DELETE] {
        let answer = app.call_as(secret(&here), method, &path(&there), None).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
    }
    let mut shown = Vec::new();
    for body in [
        json!({"name": "a", "scopes": ["frontdoor.read"], "organizationId": "other"}),
        json!({"name": "a", "scopes": ["frontdoor.read"], "frontdoorIds": [other]}),
        json!({"name": "a", "scopes": ["frontdoor.read"], "frontdoorIds": ["3d6d2b6e-6c7a-4a7f-8c3d-9a9d2e1f0b1c"]}),
    ] {
        shown.push(app.shown(&app.call_as(secret(&here), Method::POST, ACCOUNTS, Some(body)).await));
    }
    // An account that is limited to named Frontdoors could otherwise create one with wider access.
    shown.push(app.shown(&app.get_as(secret(&there), ACCOUNTS).await));
    assert_json_snapshot!("limits", shown);
    let own = json!({"name": "a", "scopes": ["frontdoor.read"], "organizationId": "default"});
    let made = app.call_as(secret(&here), Method::POST, ACCOUNTS, Some(own)).await;
    assert_eq!((made.status, &made.body["organizationId"]), (StatusCode::CREATED, &json!("default")));
}

#[tokio::test]
async fn an_account_gives_no_more_than_it_has_and_ends_what_it_gave() {
    let app = TestApp::new().await;
    let end = "2100-01-01T00:00:00Z";
    let scopes = json!(["frontdoor.admin", "frontdoor.read"]);
    let first = app.account(json!({"scopes": scopes, "organizationId": "default", "expiresAt": end})).await;
    let create = async |by: &Value, changes: Value| {
        let body = crate::harness::with(json!({"name": "a", "scopes": scopes}), changes);
        app.call_as(secret(by), Method::POST, ACCOUNTS, Some(body)).await
    };
    let mut shown = Vec::new();
    for beyond in [json!({"scopes": ["frontdoor.write"]}), json!({"expiresAt": "2100-01-01T00:00:01Z"})] {
        shown.push(app.shown(&create(&first, beyond).await));
    }
    assert_json_snapshot!("beyond_the_creator", shown);
    let second = create(&first, json!({})).await.body;
    assert_eq!(second["expiresAt"], end);
    let third = create(&second, json!({"expiresAt": "2099-01-01T00:00:00Z"})).await.body;
    let other = app.account(json!({"scopes": ["frontdoor.read"]})).await;
    assert_eq!(app.delete(&path(&first)).await.status, StatusCode::NO_CONTENT);
    for ended in [&first, &second, &third] {
        assert_eq!(app.get_as(secret(ended), "ipsec-tunnels").await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(app.get_as(secret(&other), "ipsec-tunnels").await.status, StatusCode::OK);
    let records = app.get("executions?resourceType=api-account&action=DELETE").await.body;
    assert_eq!(records["totalElements"], 3, "each end is recorded: {records}");
}
