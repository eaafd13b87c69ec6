use crate::harness::TestApp;
use axum::http::{Method, StatusCode};
use insta::assert_json_snapshot;
use jiff::Timestamp;
use serde_json::json;
use wicketgate_session::enrolment_code::EnrolmentCode;

#[tokio::test]
async fn an_agent_is_listed_until_it_is_barred() {
    let app = TestApp::new().await;
    let site = app.enrol().await;
    app.store
        .agent_connected(site.agent, "dc-1", "0.1.0", [192, 0, 2, 9].into(), Timestamp::now())
        .await
        .unwrap();
    let path = format!("agents/{}", site.agent);
    assert_json_snapshot!("connected", app.shown(&app.get_hal(&path).await));
    assert_eq!(app.get("agents").await.body["totalElements"], 1);
    assert_eq!(app.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(app.delete(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(app.get("agents").await.body["totalElements"], 0);
}

#[tokio::test]
async fn a_code_is_shown_once() {
    let app = TestApp::new().await;
    let made = app.call(Method::POST, "agents/enrollments", None).await;
    assert_json_snapshot!("code", app.shown(&made));
    assert_eq!(made.headers["cache-control"], "no-store");
    let code: EnrolmentCode = made.body["enrollmentCode"].as_str().unwrap().parse().unwrap();
    assert_ne!(code.secret(), &[0; 16]);
    let site = app.enrol().await;
    let replica = app.post("agents/enrollments", json!({"environmentId": site.environment})).await;
    assert_eq!(replica.body["environmentId"], json!(site.environment));
    let nowhere = json!({"environmentId": "env-00000000000000000000000000000000"});
    assert_json_snapshot!("nowhere", app.shown(&app.post("agents/enrollments", nowhere).await));
    assert_eq!(app.post("agents/enrollments", json!({"env": 1})).await.status, StatusCode::BAD_REQUEST);
}
