use crate::harness::{TestApp, at};
use axum::http::StatusCode;
use insta::assert_json_snapshot;
use serde_json::json;

#[tokio::test]
async fn an_environment_is_active_while_an_agent_is_connected() {
    let app = TestApp::new().await;
    let site = app.enrol().await;
    let path = format!("environments/{}", site.environment);
    assert_json_snapshot!("offline", app.shown(&app.get(&path).await));
    app.connect(site.agent).await;
    app.enrol().await;
    assert_json_snapshot!("list", app.shown(&app.get("environments").await));
    let named = app.patch(&path, json!({"name": "frankfurt"})).await;
    assert_eq!((named.status, &named.body["name"]), (StatusCode::OK, &json!("frankfurt")));
    for bad in [json!({"name": null}), json!({"name": ""}), json!({"nmae": "x"}), json!([])] {
        assert_eq!(app.patch(&path, bad).await.status, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn deleting_an_environment_deletes_its_shares_and_agents() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let path = format!("environments/{}", site.environment);
    assert_eq!(app.delete(&path).await.status, StatusCode::ACCEPTED);
    let deleting = app.get(&at("ipsec-shares", &share)).await.body;
    assert_eq!((&deleting["status"], &deleting["deletedBy"]), (&json!("DELETING"), &json!("admin")));
    assert_eq!(app.get(&format!("agents/{}", site.agent)).await.status, StatusCode::NOT_FOUND);
    assert_json_snapshot!("gone", app.shown(&app.get(&path).await));
    assert_eq!(app.delete(&path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_environment_is_named_by_its_id_or_by_its_z_id() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let (id, z_id) = (site.environment.to_string(), site.z_id.as_str());
    let (by_id, by_z_id) = (format!("environments/{id}"), format!("environments/{z_id}"));
    assert_eq!(app.get(&by_z_id).await.body, app.get(&by_id).await.body);
    let renamed = app.patch(&by_z_id, json!({"name": "frankfurt"})).await;
    assert_eq!((renamed.status, &renamed.body["id"]), (StatusCode::OK, &json!(id)));
    for (port, name, value) in
        [(1, "envZId", z_id), (2, "envZId", &id), (3, "envId", z_id), (4, "envId", &id)]
    {
        let body = json!({"name": format!("share-{port}"), "ipsecTunnelId": tunnel["id"], name: value,
            "target": "127.0.0.1:80", "ingressPort": port});
        let share = app.post("ipsec-shares", body).await;
        assert_eq!(
            (share.status, &share.body["envZId"]),
            (StatusCode::ACCEPTED, &json!(z_id)),
            "{}",
            share.text
        );
    }
    let code = app.post("agents/enrollments", json!({"environmentId": z_id})).await;
    assert_eq!(code.body["environmentId"], json!(id));
    let nowhere = app.post("agents/enrollments", json!({"environmentId": "AAAAAAAAAA"})).await;
    assert_eq!(nowhere.status, StatusCode::BAD_REQUEST, "{}", nowhere.text);
    assert_eq!(app.get("environments/AAAAAAAAAA").await.status, StatusCode::NOT_FOUND);
    assert_eq!(app.delete(&by_z_id).await.status, StatusCode::ACCEPTED);
    assert_eq!(app.get(&by_id).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_environment_is_created_by_an_agent_and_never_by_a_post() {
    let app = TestApp::new().await;
    let refused = app.post("environments", json!({"name": "dc-1"})).await;
    assert_json_snapshot!("no_post", app.shown(&refused));
    assert_eq!(app.get("environments").await.body["totalElements"], 0);
    let site = app.enrol().await;
    let path = format!("environments/{}", site.environment);
    assert_eq!(app.put(&path, json!({"name": "a"})).await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(app.post("agents", json!({})).await.status, StatusCode::METHOD_NOT_ALLOWED);
}
