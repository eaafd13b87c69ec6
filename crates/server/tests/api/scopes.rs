//! The scope that each route needs, and the Frontdoors that a caller sees.

use crate::harness::{TestApp, error};
use axum::http::{Method, StatusCode};
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const READ: &str = "frontdoor.read";
const WRITE: &str = "frontdoor.write";
const ADMIN: &str = "frontdoor.admin";

/// Every method of every route that needs a token. `{…}` in a path stands for any id.
const ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "/frontdoor/v2", READ),
    ("POST", "/frontdoor/v2", WRITE),
    ("GET", "/frontdoor/v2/api-accounts", ADMIN),
    ("POST", "/frontdoor/v2/api-accounts", ADMIN),
    ("GET", "/frontdoor/v2/api-accounts/{id}", ADMIN),
    ("DELETE", "/frontdoor/v2/api-accounts/{id}", ADMIN),
    ("GET", "/frontdoor/v2/executions", ADMIN),
    ("GET", "/frontdoor/v2/installation", ADMIN),
    ("GET", "/frontdoor/v2/unknown-peers", ADMIN),
    ("GET", "/frontdoor/v2/unknown-agents", ADMIN),
    ("POST", "/frontdoor/v2/unknown-agents/{id}/adopt", ADMIN),
    ("GET", "/frontdoor/v2/executions/{id}", ADMIN),
    ("GET", "/frontdoor/v2/gateways", ADMIN),
    ("GET", "/frontdoor/v2/gateways/{id}", ADMIN),
    ("PATCH", "/frontdoor/v2/gateways/{id}", ADMIN),
    ("DELETE", "/frontdoor/v2/gateways/{id}", ADMIN),
    ("POST", "/frontdoor/v2/gateways/{id}/confirm-removal", ADMIN),
    ("GET", "/frontdoor/v2/gateways/join-tokens", ADMIN),
    ("POST", "/frontdoor/v2/gateways/join-tokens", ADMIN),
    ("GET", "/frontdoor/v2/gateways/join-tokens/{id}", ADMIN),
    ("DELETE", "/frontdoor/v2/gateways/join-tokens/{id}", ADMIN),
    ("GET", "/frontdoor/v2/{frontdoorId}", READ),
    ("PATCH", "/frontdoor/v2/{frontdoorId}", WRITE),
    ("DELETE", "/frontdoor/v2/{frontdoorId}", WRITE),
    ("GET", "/frontdoor/v2/{frontdoorId}/locations", READ),
    ("GET", "/frontdoor/v2/{frontdoorId}/environments", READ),
    ("GET", "/frontdoor/v2/{frontdoorId}/environments/{id}", READ),
    ("PATCH", "/frontdoor/v2/{frontdoorId}/environments/{id}", WRITE),
    ("DELETE", "/frontdoor/v2/{frontdoorId}/environments/{id}", WRITE),
    ("GET", "/frontdoor/v2/{frontdoorId}/agents", READ),
    ("GET", "/frontdoor/v2/{frontdoorId}/agents/enrollments", READ),
    ("POST", "/frontdoor/v2/{frontdoorId}/agents/enrollments", WRITE),
    ("GET", "/frontdoor/v2/{frontdoorId}/agents/enrollments/{id}", READ),
    ("DELETE", "/frontdoor/v2/{frontdoorId}/agents/enrollments/{id}", WRITE),
    ("GET", "/frontdoor/v2/{frontdoorId}/agents/{id}", READ),
    ("PATCH", "/frontdoor/v2/{frontdoorId}/agents/{id}", WRITE),
    ("DELETE", "/frontdoor/v2/{frontdoorId}/agents/{id}", WRITE),
    ("GET", "/frontdoor/v2/{frontdoorId}/ipsec-tunnels", READ),
    ("POST", "/frontdoor/v2/{frontdoorId}/ipsec-tunnels", WRITE),
    ("GET", "/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}", READ),
    ("PUT", "/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}", WRITE),
    ("PATCH", "/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}", WRITE),
    ("DELETE", "/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}", WRITE),
    ("GET", "/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}/vpn-config", WRITE),
    ("POST", "/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}/psk", WRITE),
    ("POST", "/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}/reset", WRITE),
    ("GET", "/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}/ike-log", READ),
    ("GET", "/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}/metrics", READ),
    ("GET", "/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}/connection-history", READ),
    ("GET", "/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}/handover-links", READ),
    ("POST", "/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}/handover-links", WRITE),
    ("GET", "/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}/handover-links/{linkId}", READ),
    ("DELETE", "/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}/handover-links/{linkId}", WRITE),
    ("GET", "/frontdoor/v2/{frontdoorId}/ipsec-shares", READ),
    ("POST", "/frontdoor/v2/{frontdoorId}/ipsec-shares", WRITE),
    ("GET", "/frontdoor/v2/{frontdoorId}/ipsec-shares/{id}", READ),
    ("PUT", "/frontdoor/v2/{frontdoorId}/ipsec-shares/{id}", WRITE),
    ("PATCH", "/frontdoor/v2/{frontdoorId}/ipsec-shares/{id}", WRITE),
    ("DELETE", "/frontdoor/v2/{frontdoorId}/ipsec-shares/{id}", WRITE),
    ("GET", "/frontdoor/v2/{frontdoorId}/ipsec-shares/{id}/metrics", READ),
    ("POST", "/frontdoor/v2/{frontdoorId}/ipsec-shares/{id}/check", READ),
    ("POST", "/frontdoor/v2/{frontdoorId}/ipsec-shares/{id}/connections/close", WRITE),
    ("GET", "/frontdoor/v2/{frontdoorId}/executions", READ),
    ("GET", "/frontdoor/v2/{frontdoorId}/executions/{id}", READ),
    ("GET", "/frontdoor/v2/{frontdoorId}/events", READ),
];

/// Routes that need no token, or another kind of credentials.
const OPEN: &[&str] = &[
    "/",
    "/livez",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/docs/reasons",
    "/docs/reasons/{reason}",
    "/oauth/token",
    "/.well-known/jwks.json",
    "/console/options",
    "/console/session",
    "/console/sign-in",
    "/console/callback",
    "/site/open",
    "/site/tunnel",
    "/site/configuration",
    "/site/check",
];

fn filled(app: &TestApp, path: &str) -> String {
    path.replace("{frontdoorId}", &app.frontdoor.to_string())
        .replace("{id}", "any")
        .replace("{linkId}", "any")
}

/// The router and the document are made of one list, so the document names every route.
#[tokio::test]
async fn every_route_is_in_the_tables() {
    let document = TestApp::new().await.get("/openapi.json").await.body;
    let paths = document["paths"].as_object().unwrap().iter();
    let all: BTreeSet<_> = paths
        .filter(|(path, _)| !OPEN.contains(&path.as_str()))
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
            methods.map(|method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    let tables = ROUTES.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()));
    assert_eq!(all, tables.collect(), "every route belongs in ROUTES or OPEN");
}

#[tokio::test]
async fn every_route_needs_its_scope() {
    let app = TestApp::new().await;
    for (method, path, scope) in ROUTES {
        let others: Vec<_> = [READ, WRITE, ADMIN].into_iter().filter(|s| s != scope).collect();
        let lacking = app.account(json!({"scopes": others})).await;
        let having = app.account(json!({"scopes": [scope]})).await;
        let (lacking, having) = (&lacking["clientSecret"], &having["clientSecret"]);
        let call = async |token: &Value| {
            let method: Method = method.parse().unwrap();
            let is_last = method == Method::DELETE && *path == "/frontdoor/v2/{frontdoorId}";
            let body = (method != Method::GET && !is_last).then(|| json!({}));
            app.call_as(token.as_str().unwrap(), method, &filled(&app, path), body).await
        };
        let answer = call(lacking).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path}: {}", answer.text);
        assert_eq!(answer.body["error"], "not_authorized", "{method} {path}");
        assert_eq!(answer.body["message"], format!("The token lacks the scope {scope}"), "{method} {path}");
        // Accounts belong to an organization, and unknown peers, unknown agents, gateways and the installation to none.
        let is_answered = (*method, *path) != ("DELETE", "/frontdoor/v2/{frontdoorId}")
            && !path.ends_with("/events")
            && !path.contains("/unknown-")
            && !path.contains("/gateways")
            && !path.ends_with("/installation");
        if is_answered {
            let answer = call(having).await;
            assert_ne!(answer.status, StatusCode::FORBIDDEN, "{method} {path}: {}", answer.text);
        }
        let without = app.call_as("wgs_nobody", method.parse().unwrap(), &filled(&app, path), None).await;
        assert_eq!(without.status, StatusCode::UNAUTHORIZED, "{method} {path}");
    }
}

#[tokio::test]
async fn unknown_peers_and_agents_are_for_who_administers_all_organizations() {
    let app = TestApp::new().await;
    let own = app.account(json!({"organizationId": "default", "scopes": [ADMIN]})).await;
    for path in ["/frontdoor/v2/unknown-peers", "/frontdoor/v2/unknown-agents"] {
        assert_eq!(app.get(path).await.body["totalElements"], 0);
        let answer = app.get_as(own["clientSecret"].as_str().unwrap(), path).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text);
    }
}

#[tokio::test]
async fn unknown_and_forbidden_frontdoors_get_the_same_answer() {
    let app = TestApp::new().await;
    let mut made = Vec::new();
    for organization in ["default", "other"] {
        let body = json!({"organizationId": organization, "defaultNamespaceName": "prod", "ipsecSharesEnabled": true});
        made.push(app.post("/frontdoor/v2", body).await.body["id"].as_str().unwrap().to_owned());
    }
    let [second, other] = &made[..] else { panic!() };
    let scopes = json!([READ, WRITE, ADMIN]);
    let all = app.account(json!({"organizationId": "default", "scopes": scopes})).await;
    let named = app.account(json!({"frontdoorIds": [second], "scopes": scopes})).await;
    let unknown = "3d6d2b6e-6c7a-4a7f-8c3d-9a9d2e1f0b1c".to_owned();
    let first = app.frontdoor.to_string();
    for (account, seen, hidden) in [
        (&all, &[&first, second][..], &[other, &unknown][..]),
        (&named, &[second], &[&first, other, &unknown]),
    ] {
        let token = account["clientSecret"].as_str().unwrap();
        let list = app.get_as(token, "/frontdoor/v2").await.body;
        let listed: Vec<_> =
            list["content"].as_array().unwrap().iter().map(|f| f["id"].as_str().unwrap()).collect();
        assert_eq!(listed, seen.iter().map(|s| s.as_str()).collect::<Vec<_>>());
        assert_eq!(list["totalElements"], seen.len());
        for id in seen {
            assert_eq!(
                app.get_as(token, &format!("/frontdoor/v2/{id}/ipsec-shares")).await.status,
                StatusCode::OK
            );
        }
        for id in hidden {
            for (method, below) in [
                (Method::GET, ""),
                (Method::PATCH, ""),
                (Method::DELETE, ""),
                (Method::GET, "/ipsec-shares"),
                (Method::POST, "/ipsec-tunnels"),
                (Method::GET, "/executions/x"),
            ] {
                let answer =
                    app.call_as(token, method, &format!("/frontdoor/v2/{id}{below}"), Some(json!({}))).await;
                assert_eq!(answer.status, StatusCode::FORBIDDEN);
                assert_eq!(answer.body, error("not_found", &format!("Frontdoor {id} not found")));
            }
        }
    }
}

#[tokio::test]
async fn frontdoors_are_created_within_the_callers_reach_and_enabled_by_admins() {
    let app = TestApp::new().await;
    let writer = app.account(json!({"organizationId": "default", "scopes": [READ, WRITE]})).await;
    let admin = app.account(json!({"organizationId": "default", "scopes": [READ, WRITE, ADMIN]})).await;
    let named = app.account(json!({"frontdoorIds": [app.frontdoor], "scopes": [READ, WRITE]})).await;
    let token = |account: &Value| account["clientSecret"].as_str().unwrap().to_owned();
    let (writer, admin, named) = (token(&writer), token(&admin), token(&named));
    let body = |organization: &str, enabled: bool| {
        Some(
            json!({"organizationId": organization, "defaultNamespaceName": "prod", "ipsecSharesEnabled": enabled}),
        )
    };
    let mut shown = Vec::new();
    for (token, body) in [
        (&writer, body("default", true)),
        (&writer, body("other", false)),
        (&named, body("default", false)),
        (&writer, body("default", false)),
    ] {
        shown.push(app.shown(&app.call_as(token, Method::POST, "/frontdoor/v2", body).await));
    }
    let list = app.get("/frontdoor/v2").await.body;
    let path = format!("/frontdoor/v2/{}", list["content"][1]["id"].as_str().unwrap());
    let enable = Some(json!({"ipsecSharesEnabled": true}));
    shown.push(app.shown(&app.call_as(&writer, Method::PATCH, &path, enable.clone()).await));
    for below in ["ipsec-shares", "ipsec-tunnels"] {
        shown.push(app.shown(&app.get_as(&writer, &format!("{path}/{below}")).await));
    }
    shown.push(app.shown(&app.call_as(&admin, Method::PATCH, &path, enable).await));
    assert_json_snapshot!("frontdoors", shown);
    assert_eq!(app.get_as(&writer, &format!("{path}/ipsec-shares")).await.status, StatusCode::OK);
}
