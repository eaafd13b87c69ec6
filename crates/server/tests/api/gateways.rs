//! The gateways of the installation, and what lets others join.

use crate::harness::{Answer, TestApp, gateway_id, tunnel};
use axum::http::{Method, StatusCode};
use insta::assert_json_snapshot;
use serde_json::{Value, json};
use uuid::Uuid;
use wicketgate_model::{EspMode, GatewayId, JoinRefusal, TunnelId};
use wicketgate_store::{GatewayFacts, JoinAttempt};
use wicketgate_transport::code::{JoinToken, secret_hash};

const GATEWAYS: &str = "/frontdoor/v2/gateways";
const TOKENS: &str = "/frontdoor/v2/gateways/join-tokens";

async fn token(app: &TestApp, body: Value) -> (JoinToken, Answer) {
    let made = app.post(TOKENS, body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.headers["cache-control"], "no-store");
    (made.body["joinToken"].as_str().unwrap().parse().unwrap(), made)
}

/// The text of an error with this status.
fn refused(answer: &Answer, status: StatusCode) -> &str {
    assert_eq!(answer.status, status, "{}", answer.text);
    answer.body["message"].as_str().unwrap()
}

async fn join(app: &TestApp, token: &JoinToken, key: u8) -> Result<GatewayId, JoinRefusal> {
    let attempt = JoinAttempt {
        token: token.id(),
        secret_sha256: secret_hash(token.secret()),
        public_key_sha256: [key; 32],
    };
    let joined = app.store.join_gateway(&attempt, &app.act()).await.unwrap();
    joined.map(|joined| joined.id)
}

#[tokio::test]
async fn a_gateway_joins_drains_and_is_removed() {
    let app = TestApp::new().await;
    let facts = GatewayFacts {
        public_address: Some([198, 51, 100, 7].into()),
        esp: Some(EspMode::Kernel),
        namespaces: Some("wicketgate-1".to_owned()),
        max_tunnels: Some(200),
        agent_url: None,
        version: None,
    };
    app.store.gateway_introduced(&app.epoch, &facts).await.unwrap();
    let made = app.post("ipsec-tunnels", tunnel("customer-a", 1)).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.text);
    let own = format!("{GATEWAYS}/{}", gateway_id());
    assert_json_snapshot!(app.shown(&app.get(&own).await));

    let (first, answer) = token(&app, json!({"locationId": "us-east-1"})).await;
    assert_json_snapshot!(app.shown(&answer));
    let listed = app.get(TOKENS).await;
    assert_eq!(listed.body["totalElements"], 1);
    assert!(!listed.text.contains(&first.expose()[60..]), "{}", listed.text);
    let id = join(&app, &first, 1).await.unwrap();
    assert_eq!(app.get(TOKENS).await.body["totalElements"], 0);
    let path = format!("{GATEWAYS}/{id}");
    let joined = app.get(&path).await.body;
    assert_eq!((&joined["locationId"], &joined["status"]), (&json!("us-east-1"), &json!("OFFLINE")));
    let found = app.get(&format!("{GATEWAYS}?locationId=us-east-1&status=OFFLINE")).await.body;
    assert_eq!((&found["totalElements"], &found["content"][0]["id"]), (&json!(1), &json!(id.to_string())));

    assert_eq!(app.patch(&path, json!({"draining": "yes"})).await.status, StatusCode::BAD_REQUEST);
    let drained = app.patch(&path, json!({"draining": true})).await;
    assert_eq!(
        (drained.status, &drained.body["draining"]),
        (StatusCode::OK, &json!(true)),
        "{}",
        drained.text
    );
    assert_eq!(app.patch(&path, json!({})).await.body["draining"], true);

    // Another machine of the same gateway.
    let (replacement, answer) = token(&app, json!({"gatewayId": id.to_string()})).await;
    assert_eq!(
        (&answer.body["gatewayId"], &answer.body["locationId"]),
        (&json!(id.to_string()), &json!("us-east-1"))
    );
    assert_eq!(join(&app, &replacement, 2).await, Ok(id));

    let (unused, _) = token(&app, json!({"gatewayId": id.to_string()})).await;
    assert_eq!(app.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(app.get(&path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(join(&app, &unused, 3).await, Err(JoinRefusal::Expired));
    assert_eq!(join(&app, &replacement, 2).await, Err(JoinRefusal::Removed));

    let executions = app.get("/frontdoor/v2/executions?sort=createdAt").await.body;
    let seen = executions["content"].as_array().unwrap().iter();
    let seen: Vec<_> = seen
        .map(|it| format!("{} {}", it["action"].as_str().unwrap(), it["resourceType"].as_str().unwrap()))
        .collect();
    let tail: Vec<_> = seen.iter().map(String::as_str).filter(|it| !it.ends_with("frontdoor")).collect();
    let expected = [
        "CREATE join-token",
        "ENROL gateway",
        "UPDATE gateway",
        "CREATE join-token",
        "ROTATE_KEY gateway",
        "CREATE join-token",
        "DELETE gateway",
    ];
    assert_eq!(tail, expected);
    assert!(!executions.to_string().contains("\"organizationId\":\"\""), "{executions}");
}

#[tokio::test]
async fn a_gateway_that_is_needed_is_not_removed() {
    let app = TestApp::new().await;
    let answer = app.delete(&format!("{GATEWAYS}/{}", gateway_id())).await;
    let says = refused(&answer, StatusCode::CONFLICT);
    assert!(says.contains("part of the server's process"), "{says}");
    let (first, _) = token(&app, json!({"locationId": "us-east-1"})).await;
    let id = join(&app, &first, 1).await.unwrap();
    // A location is known with the gateways that the server knows.
    let made = app.post("ipsec-tunnels", tunnel("customer-a", 1)).await;
    let made: TunnelId = made.body["id"].as_str().unwrap().parse().unwrap();
    let path = format!("{GATEWAYS}/{id}");
    assert_eq!(app.store.tunnel(app.frontdoor, made).await.unwrap().unwrap().gateway, Some(gateway_id()));
    let (second, _) = token(&app, json!({"locationId": "local"})).await;
    let second = join(&app, &second, 2).await.unwrap();
    let placed = app.post("ipsec-tunnels", tunnel("customer-b", 2)).await.body;
    let placed_at = app.store.tunnel(app.frontdoor, placed["id"].as_str().unwrap().parse().unwrap()).await;
    assert_eq!(placed_at.unwrap().unwrap().gateway, Some(second));
    let full = format!("{GATEWAYS}/{second}");
    let answer = app.delete(&full).await;
    let says = refused(&answer, StatusCode::CONFLICT);
    assert!(says.contains("before its 1 tunnels"), "{says}");
    assert_eq!(app.get(&full).await.body["tunnels"], 1);
    assert_eq!(app.delete(&path).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_token_is_for_one_of_two_things_and_can_be_revoked() {
    let app = TestApp::new().await;
    let unknown = format!("gwy-{}", Uuid::from_u128(9).simple());
    for (body, says) in [
        (json!({}), "locationId is required, or gatewayId"),
        (json!({"locationId": "a", "gatewayId": unknown}), "must be left out with gatewayId"),
        (json!({"locationId": "A b"}), "locationId"),
    ] {
        let answer = app.post(TOKENS, body.clone()).await;
        let said = refused(&answer, StatusCode::BAD_REQUEST);
        assert!(said.contains(says), "{body}: {said}");
    }
    for gateway in [unknown, gateway_id().to_string()] {
        let answer = app.post(TOKENS, json!({"gatewayId": gateway})).await;
        let said = refused(&answer, StatusCode::CONFLICT);
        assert!(said.contains("can't be replaced"), "{said}");
    }
    let (first, answer) = token(&app, json!({"locationId": "local"})).await;
    let path = format!("{TOKENS}/{}", answer.body["id"].as_str().unwrap());
    assert_eq!(app.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(app.get(&path).await.body["state"], "EXPIRED");
    assert_eq!(join(&app, &first, 1).await, Err(JoinRefusal::Expired));
}

#[tokio::test]
async fn only_the_operator_sees_gateways() {
    let app = TestApp::new().await;
    let account = app.account(json!({"scopes": ["frontdoor.admin", "frontdoor.write"]})).await;
    let secret = account["clientSecret"].as_str().unwrap();
    let own = format!("{GATEWAYS}/{}", gateway_id());
    let asked = [
        (Method::GET, GATEWAYS, None),
        (Method::GET, own.as_str(), None),
        (Method::PATCH, own.as_str(), Some(json!({"draining": true}))),
        (Method::DELETE, own.as_str(), None),
        (Method::GET, TOKENS, None),
        (Method::POST, TOKENS, Some(json!({"locationId": "local"}))),
    ];
    for (method, path, body) in asked {
        let refused = app.call_as(secret, method.clone(), path, body).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{method} {path}");
    }
    let (_, answer) = token(&app, json!({"locationId": "local"})).await;
    let executions = app.get_as(secret, "/frontdoor/v2/executions").await;
    assert!(!executions.text.contains(answer.body["id"].as_str().unwrap()), "{}", executions.text);
}

#[tokio::test]
async fn removals_that_a_gateway_holds_back_are_confirmed_by_their_number() {
    let app = TestApp::new().await;
    let own = format!("{GATEWAYS}/{}", gateway_id());
    let confirm = format!("{own}/confirm-removal");
    let none = app.post(&confirm, json!({"heldRemovals": 3})).await;
    assert!(
        refused(&none, StatusCode::CONFLICT).contains("holds back the removal of 0 tunnels"),
        "{}",
        none.text
    );
    app.store.removals_held(&app.epoch, 3).await.unwrap();
    assert_eq!(app.get(&own).await.body["heldRemovals"], 3);
    let other = app.post(&confirm, json!({"heldRemovals": 2})).await;
    assert!(refused(&other, StatusCode::CONFLICT).contains("of 3 tunnels, and not of 2"), "{}", other.text);
    for wrong in [json!({}), json!({"heldRemovals": 0}), json!({"heldRemovals": "3"})] {
        assert_eq!(app.post(&confirm, wrong).await.status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(app.post(&confirm, json!({"heldRemovals": 3})).await.status, StatusCode::OK);
    assert!(app.store.is_removal_confirmed(gateway_id()).await.unwrap());
    // Another link: what is held back there is to be confirmed again.
    app.store.link_gateway(gateway_id(), app.act().at).await.unwrap();
    assert_eq!(app.get(&own).await.body["heldRemovals"], Value::Null);
    assert!(!app.store.is_removal_confirmed(gateway_id()).await.unwrap());
}
