use crate::harness::{TestApp, at, tunnel, with};
use axum::http::StatusCode;
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use wicketgate_model::Status;

const KEY: &str = "a key of more than twenty characters";
const OTHER_KEY: &str = "another key of more than twenty characters";

#[tokio::test]
async fn executions_are_listed_and_filtered_by_process() {
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

/// The action and the resource type that the execution of each kind of write has.
#[tokio::test]
async fn every_kind_of_write_is_recorded() {
    let (app, made, site) = TestApp::with_site().await;
    let share = app.share(&made, &site.z_id, "app-db", 8443).await;
    let (share, site_tunnel) = (at("ipsec-shares", &share), at("ipsec-tunnels", &made));
    let frontdoor = format!("/frontdoor/v2/{}", app.frontdoor);
    let environment = format!("environments/{}", site.environment);
    let agent = format!("agents/{}", site.agent);
    let account = app.account(json!({})).await;
    let account = format!("/frontdoor/v2/api-accounts/{}", account["clientId"].as_str().unwrap());
    let whole = app.get(&site_tunnel).await.body;
    let other = whole.clone();
    for (method, path, body, action, kind) in [
        ("PATCH", &*share, json!({"ingressPort": 1}), "UPDATE", "ipsec-share"),
        ("PUT", &*site_tunnel, with(whole, json!({"initiate": true})), "UPDATE", "ipsec-tunnel"),
        ("PATCH", &*site_tunnel, json!({"name": "b"}), "UPDATE", "ipsec-tunnel"),
        // However a key is replaced, the record of revocations has it.
        ("PATCH", &*site_tunnel, json!({"name": "c", "preSharedKey": KEY}), "ROTATE_KEY", "ipsec-tunnel"),
        ("PATCH", &*site_tunnel, json!({"name": "b", "preSharedKey": KEY}), "UPDATE", "ipsec-tunnel"),
        ("PUT", &*site_tunnel, with(other, json!({"preSharedKey": OTHER_KEY})), "ROTATE_KEY", "ipsec-tunnel"),
        ("POST", &format!("{site_tunnel}/psk"), json!({}), "ROTATE_KEY", "ipsec-tunnel"),
        ("DELETE", &*share, json!({}), "DELETE", "ipsec-share"),
        ("POST", "ipsec-tunnels", tunnel("c", 3), "CREATE", "ipsec-tunnel"),
        ("DELETE", &*site_tunnel, json!({}), "DELETE", "ipsec-tunnel"),
        ("PATCH", &*environment, json!({"name": "b"}), "UPDATE", "environment"),
        ("POST", "agents/enrollments", json!({}), "CREATE", "enrollment"),
        ("DELETE", &*agent, json!({}), "DELETE", "agent"),
        ("DELETE", &*environment, json!({}), "DELETE", "environment"),
        ("PATCH", &*frontdoor, json!({"defaultNamespaceName": "b"}), "UPDATE", "frontdoor"),
        (
            "POST",
            "/frontdoor/v2/api-accounts",
            json!({"name": "a", "scopes": ["frontdoor.read"]}),
            "CREATE",
            "api-account",
        ),
        ("DELETE", &*account, json!({}), "DELETE", "api-account"),
    ] {
        let before = app.get("executions").await.body["totalElements"].clone();
        let answer = app.call(method.parse().unwrap(), path, Some(body)).await;
        assert!(answer.status.is_success(), "{method} {path}: {}", answer.text);
        let last = &app.get("executions?sort=id,desc&size=1").await.body;
        assert!(last["totalElements"].as_u64() > before.as_u64(), "{method} {path} created no execution");
        let last = &last["content"][0];
        assert_eq!(
            (&last["action"], &last["resourceType"]),
            (&json!(action), &json!(kind)),
            "{method} {path}"
        );
        assert_eq!(last["actor"], "admin");
    }
}

#[tokio::test]
async fn an_execution_has_the_result_of_its_write_and_the_reason() {
    let (app, tunnel, site) = TestApp::with_site().await;
    for (name, port, status) in
        [("a", 1, Status::Deployed), ("b", 2, Status::Error), ("c", 3, Status::Deleted)]
    {
        let share = app.share(&tunnel, &site.z_id, name, port).await;
        app.settle(&share, status).await;
    }
    app.share(&tunnel, &site.z_id, "d", 4).await;
    let all = app.get("executions?resourceType=ipsec-share").await.body;
    let results = |e: &Value| json!([e["status"], e["message"], e["finishedAt"].is_string()]);
    let results: Vec<_> = all["content"].as_array().unwrap().iter().map(results).collect();
    let cause = "deleted before it was deployed";
    assert_eq!(
        results,
        [
            json!(["SUCCESS", null, true]),
            json!(["FAILED", null, true]),
            json!(["FAILED", cause, true]),
            json!(["RUNNING", null, false]),
        ]
    );
}

/// The organization's executions: those of no Frontdoor, and those on Frontdoors, which remain after a deletion.
#[tokio::test]
async fn an_organization_has_its_own_executions() {
    const RECORD: &str = "/frontdoor/v2/executions";
    let app = TestApp::new().await;
    let scopes = json!(["frontdoor.read", "frontdoor.write", "frontdoor.admin"]);
    // The organization of this account has no Frontdoor.
    let admin = app.account(json!({"organizationId": "acme", "scopes": scopes})).await;
    let token = admin["clientSecret"].as_str().unwrap();
    let call = async |method: &str, path: &str, body: Value| {
        let answer = app.call_as(token, method.parse().unwrap(), path, Some(body)).await;
        assert!(answer.status.is_success(), "{method} {path}: {}", answer.text);
        answer.body
    };
    let account = json!({"name": "a", "scopes": ["frontdoor.read"], "organizationId": "acme"});
    let account = call("POST", "/frontdoor/v2/api-accounts", account).await;
    let path = format!("/frontdoor/v2/api-accounts/{}", account["clientId"].as_str().unwrap());
    call("DELETE", &path, json!({})).await;
    let body = json!({"organizationId": "acme", "defaultNamespaceName": "prod"});
    let frontdoor = call("POST", "/frontdoor/v2", body).await;
    let frontdoor = format!("/frontdoor/v2/{}", frontdoor["id"].as_str().unwrap());
    call("PATCH", &frontdoor, json!({"defaultNamespaceName": "test"})).await;
    let own = app.get_as(token, &format!("{frontdoor}/executions")).await.body;
    assert_eq!((&own["totalElements"], &own["content"][0]["organizationId"]), (&json!(2), &json!("acme")));
    call("DELETE", &frontdoor, json!({})).await;

    let record = app.get_as(token, RECORD).await;
    assert_json_snapshot!("organization", app.shown(&record));
    for one in record.body["content"].as_array().unwrap() {
        let path = format!("{RECORD}/{}", one["id"].as_str().unwrap());
        assert_eq!(app.get_as(token, &path).await.body, *one);
        assert_eq!(app.get_hal(&path).await.body["_links"]["self"]["href"], path);
    }
    let filtered =
        format!("{RECORD}?actor={}&action=DELETE&sort=createdAt,desc", admin["clientId"].as_str().unwrap());
    assert_eq!(app.get_as(token, &filtered).await.body["totalElements"], 2);

    // An account does not see executions of another organization, nor those inside a Frontdoor; the admin token
    // sees those of all organizations.
    let here = app.account(json!({"organizationId": "default", "scopes": scopes})).await;
    let token = here["clientSecret"].as_str().unwrap();
    let theirs = app.get_as(token, RECORD).await.body;
    let organizations: Vec<_> =
        theirs["content"].as_array().unwrap().iter().map(|e| &e["organizationId"]).collect();
    assert_eq!(organizations, ["default", "default"]);
    let one = format!("{RECORD}/{}", record.body["content"][0]["id"].as_str().unwrap());
    assert_eq!(app.get_as(token, &one).await.status, StatusCode::NOT_FOUND);
    app.post("ipsec-tunnels", tunnel("a", 1)).await;
    let of_tunnel = &app.get("executions?resourceType=ipsec-tunnel").await.body["content"][0];
    let of_tunnel = format!("{RECORD}/{}", of_tunnel["id"].as_str().unwrap());
    assert_eq!(app.get(&of_tunnel).await.status, StatusCode::NOT_FOUND);
    assert_eq!(app.get(RECORD).await.body["totalElements"], 8);
    let named = app.account(json!({"frontdoorIds": [app.frontdoor], "scopes": scopes})).await;
    let refused = app.get_as(named["clientSecret"].as_str().unwrap(), RECORD).await;
    assert_eq!((refused.status, &refused.body["error"]), (StatusCode::FORBIDDEN, &json!("not_authorized")));
}
