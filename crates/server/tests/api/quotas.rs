//! Quotas of a Frontdoor: what is refused beyond them, and who sets them.

use crate::harness::{Answer, TestApp, at, share, tunnel};
use axum::{
    body::{Body, Bytes},
    http::{Method, Request, StatusCode},
};
use futures_util::stream;
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use std::{convert::Infallible, time::Duration};
use tokio::sync::oneshot;
use wicketgate_model::{QuotaSetting, Quotas, Status};

fn quotas(settings: &[&str]) -> Quotas {
    settings.iter().map(|text| text.parse::<QuotaSetting>().unwrap()).collect()
}

fn frontdoor(app: &TestApp) -> String {
    format!("/frontdoor/v2/{}", app.frontdoor)
}

/// How many there are of how many.
async fn quota(app: &TestApp, kind: &str) -> (u64, u64) {
    let quota = app.get(&frontdoor(app)).await.body["quotas"][kind].clone();
    (quota["used"].as_u64().unwrap(), quota["limit"].as_u64().unwrap())
}

fn is_refused(answer: &Answer) -> bool {
    (answer.status, &answer.body["error"]) == (StatusCode::CONFLICT, &json!("quota_exceeded"))
}

#[tokio::test]
async fn beyond_a_quota_nothing_is_created_until_there_is_room() {
    let app = TestApp::with_quotas(quotas(&["shares=2", "tunnels=1"])).await;
    let made = app.post("ipsec-tunnels", tunnel("a", 1)).await.body;
    assert_json_snapshot!("exceeded", app.shown(&app.post("ipsec-tunnels", tunnel("b", 2)).await));
    let enrolled = app.enrol().await;
    let mut shares = Vec::new();
    for port in [9001, 9002] {
        shares.push(app.share(&made, &enrolled.z_id, &format!("s{port}"), port).await);
    }
    let third = || app.post("ipsec-shares", share(&made, &enrolled.z_id, "third", 9003));
    assert!(is_refused(&third().await));
    assert_eq!(quota(&app, "shares").await, (2, 2));
    // A share that is being deleted takes room until nothing of it is left.
    app.delete(&at("ipsec-shares", &shares[0])).await;
    assert!(is_refused(&third().await));
    app.settle(&shares[0], Status::Deleted).await;
    assert_eq!(third().await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn an_unused_code_has_the_place_of_its_agent() {
    let app = TestApp::with_quotas(quotas(&["agents=2", "environments=1", "enrollment-codes=5"])).await;
    let environment = app.enrol().await.environment;
    let new = app.post("agents/enrollments", json!({})).await;
    assert!(is_refused(&new) && new.body["message"].as_str().unwrap().contains("quota of environments"));
    let replica = || app.post("agents/enrollments", json!({"environmentId": environment.to_string()}));
    assert_eq!(replica().await.status, StatusCode::CREATED);
    assert_eq!((quota(&app, "agents").await, quota(&app, "enrollmentCodes").await), ((2, 2), (1, 5)));
    let refused = replica().await;
    assert!(is_refused(&refused) && refused.body["message"].as_str().unwrap().contains("quota of agents"));

    let app = TestApp::with_quotas(quotas(&["enrollment-codes=0"])).await;
    assert_json_snapshot!("codes", app.shown(&app.post("agents/enrollments", json!({})).await));
}

#[tokio::test]
async fn an_account_takes_a_place_in_each_frontdoor_that_it_reaches() {
    let app = TestApp::with_quotas(quotas(&["api-accounts=1", "frontdoors=2"])).await;
    let organization = json!({"organizationId": "default", "defaultNamespaceName": "b"});
    let second = app.post("/frontdoor/v2", organization.clone()).await.body;
    assert!(is_refused(&app.post("/frontdoor/v2", organization).await));
    let account = async |frontdoors: Value| {
        let body = json!({"name": "a", "scopes": ["frontdoor.read"], "organizationId": "default",
            "frontdoorIds": frontdoors});
        app.post("/frontdoor/v2/api-accounts", body).await
    };
    assert_eq!(account(json!([second["id"]])).await.status, StatusCode::CREATED);
    assert!(is_refused(&account(json!([second["id"]])).await));
    assert!(is_refused(&account(Value::Null).await), "it reaches the second Frontdoor too");
    assert_eq!(account(json!([app.frontdoor.to_string()])).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn the_operator_alone_sets_the_quotas_of_a_frontdoor() {
    let app = TestApp::with_quotas(quotas(&["tunnels=1"])).await;
    let path = frontdoor(&app);
    app.post("ipsec-tunnels", tunnel("a", 1)).await;
    assert_json_snapshot!("read", app.shown(&app.get(&path).await));
    let raised =
        app.patch(&path, json!({"quotas": {"tunnels": 2, "shares": {"limit": 7, "used": 99}}})).await;
    assert_eq!(raised.body["quotas"]["tunnels"], json!({"limit": 2, "used": 1}));
    assert_eq!(quota(&app, "shares").await, (0, 7));
    assert_eq!(app.post("ipsec-tunnels", tunnel("b", 2)).await.status, StatusCode::ACCEPTED);
    // What is there stays.
    app.patch(&path, json!({"quotas": {"tunnels": 0}})).await;
    assert_eq!(quota(&app, "tunnels").await, (2, 0));
    assert!(is_refused(&app.post("ipsec-tunnels", tunnel("c", 3)).await));
    // `null` restores the limit of the installation.
    app.patch(&path, json!({"quotas": {"tunnels": null}})).await;
    assert_eq!((quota(&app, "tunnels").await, quota(&app, "shares").await), ((2, 1), (0, 7)));
    let wrong = json!({"quotas": {"tunnels": -1, "shares": "many", "cars": 1, "agents": {"used": 1}}});
    assert_json_snapshot!("faults", app.shown(&app.patch(&path, wrong).await));

    // A number is kept also if the installation has the same now.
    app.patch(&path, json!({"quotas": {"tunnels": 1}})).await;
    let own = app.store.frontdoor(app.frontdoor).await.unwrap().unwrap().spec.quotas;
    assert_eq!(own, quotas(&["shares=7", "tunnels=1"]));
    app.patch(&path, json!({"quotas": {"tunnels": null}})).await;

    let admin = administrator(&app).await;
    let patch = async |body| app.call_as(&admin, Method::PATCH, &path, Some(body)).await;
    let sent_back = patch(app.get_as(&admin, &path).await.body).await;
    assert_eq!(sent_back.status, StatusCode::OK, "{}", sent_back.text);
    let own = app.store.frontdoor(app.frontdoor).await.unwrap().unwrap().spec.quotas;
    assert_eq!(own, quotas(&["shares=7"]), "what was sent back sets nothing");
    let refused = patch(json!({"quotas": {"tunnels": 9}})).await;
    assert_json_snapshot!("not_the_operator", app.shown(&refused));
}

async fn administrator(app: &TestApp) -> String {
    let scopes = json!({"scopes": ["frontdoor.read", "frontdoor.write", "frontdoor.admin"]});
    app.account(scopes).await["clientSecret"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_tenants_change_that_began_earlier_keeps_the_operators_quotas() {
    let app = TestApp::new().await;
    let (path, admin) = (frontdoor(&app), administrator(&app).await);
    let (reading, is_read) = oneshot::channel();
    let (send, body) = oneshot::channel::<&str>();
    // The body is read after the Frontdoor.
    let body = stream::once(async move {
        reading.send(()).unwrap();
        Ok::<_, Infallible>(Bytes::from(body.await.unwrap()))
    });
    let tenants = Request::patch(&path)
        .header("authorization", format!("Bearer {admin}"))
        .header("content-type", "application/json")
        .body(Body::from_stream(body))
        .unwrap();
    let operator = async {
        tokio::time::timeout(Duration::from_secs(30), is_read).await.unwrap().unwrap();
        app.patch(&path, json!({"quotas": {"tunnels": 3}, "ipsecSharesEnabled": false})).await;
        send.send(r#"{"defaultNamespaceName": "later"}"#).unwrap();
    };
    let (changed, ()) = tokio::join!(app.send(tenants), operator);
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.text);
    assert_eq!(changed.body["defaultNamespaceName"], "later");
    assert_eq!(changed.body["quotas"]["tunnels"]["limit"], 3);
    assert_eq!(changed.body["ipsecSharesEnabled"], false);
}

#[tokio::test]
async fn a_quota_of_streams_is_named_when_it_is_used_up() {
    let app = TestApp::with_quotas(quotas(&["event-streams=0"])).await;
    assert_json_snapshot!("streams", app.shown(&app.get("events").await));
}
