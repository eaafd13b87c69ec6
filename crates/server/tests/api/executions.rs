use crate::harness::{TestApp, at};
use axum::http::StatusCode;
use insta::assert_json_snapshot;
use serde_json::json;
use wicketgate_model::Status;

#[tokio::test]
async fn every_write_has_a_record() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    app.settle(&share, Status::Deployed).await;
    app.patch(&at("ipsec-shares", &share), json!({"ingressPort": 1})).await;
    let all = app.get("executions").await;
    assert_json_snapshot!("all", app.shown(&all));
    let last = all.body["content"].as_array().unwrap().last().unwrap();
    let process = last["processId"].as_str().unwrap();
    let of_process = app.get_hal(&format!("executions?processId={process}")).await;
    assert_json_snapshot!("of_a_process", app.shown(&of_process));
    assert_eq!(app.get(&at("executions", last)).await.body, *last);
    assert_eq!(app.get("executions?processId=7").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(app.get("executions/exe-7").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn one_request_is_one_process() {
    let (app, tunnel, site) = TestApp::with_site().await;
    for (name, port) in [("a", 1), ("b", 2)] {
        app.share(&tunnel, &site.z_id, name, port).await;
    }
    app.delete(&format!("environments/{}", site.environment)).await;
    let all = app.get("executions").await.body;
    let process = &all["content"].as_array().unwrap().last().unwrap()["processId"];
    let of_process = app.get(&format!("executions?processId={}", process.as_str().unwrap())).await;
    assert_eq!(of_process.body["totalElements"], 3);
}
