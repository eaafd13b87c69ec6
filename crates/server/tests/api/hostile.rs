//! Malicious requests. Each gets a 4xx that names the fault, and the response is short.

use crate::harness::{Answer, TOKEN, TestApp, at, share, tunnel, with};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use serde_json::{Value, json};

/// The upper limit of a response in bytes, however large the request is.
const LONGEST_ANSWER: usize = 20_000;

async fn send(app: &TestApp, method: Method, path: &str, body: impl Into<Body>) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(app.path(path))
        .header("authorization", format!("Bearer {TOKEN}"))
        .header("content-type", "application/json");
    let answer = app.send(request.body(body.into()).unwrap()).await;
    assert!(answer.text.len() < LONGEST_ANSWER, "{} bytes", answer.text.len());
    answer
}

async fn refused(app: &TestApp, body: impl Into<Body>, status: StatusCode, message: &str) {
    let answer = send(app, Method::POST, "ipsec-shares", body).await;
    assert_eq!(answer.status, status, "{}", answer.text);
    let said = answer.body["message"].as_str().unwrap();
    assert!(said.contains(message), "{said}");
}

#[tokio::test]
async fn an_ambiguous_request_is_refused() {
    let app = TestApp::new().await;
    let bad = StatusCode::BAD_REQUEST;
    refused(&app, r#"{"name": "a", "target": "b:1", "name": "c"}"#, bad, "name occurs twice").await;
    refused(&app, r#"{"tags": {"a": "b", "\u0061": "c"}}"#, bad, "a occurs twice").await;
    refused(&app, r#"{"name": [{"x": 1, "x": 1}]}"#, bad, "x occurs twice").await;
}

#[tokio::test]
async fn deep_nesting_large_numbers_and_invalid_utf8_are_refused() {
    let app = TestApp::new().await;
    let bad = StatusCode::BAD_REQUEST;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [200, 50_000] {
            let deep = format!("{{\"name\": {}1{}}}", open.repeat(depth), close.repeat(depth));
            refused(&app, deep, bad, "recursion limit").await;
        }
    }
    for number in ["1e999", "-1e999", &"9".repeat(1000)] {
        let answer = send(&app, Method::POST, "ipsec-shares", format!("{{\"ingressPort\": {number}}}")).await;
        assert_eq!(answer.status, bad);
        let said = answer.body["message"].as_str().unwrap();
        assert!(said.contains("ingressPort must be") || said.contains("number out of range"), "{said}");
    }
    for number in ["18446744073709551615", "-9223372036854775808", "1e308", "5e-324", "-0.0"] {
        for property in ["ingressPort", "maxConnections", "idleTimeoutSeconds"] {
            refused(&app, format!("{{\"{property}\": {number}}}"), bad, property).await;
        }
    }
    for bytes in [&b"{\"name\": \"\xff\"}"[..], b"{\"name\": \"\xed\xa0\x80\"}", b"{\"\xc0\x80\": 1}"] {
        refused(&app, bytes.to_vec(), bad, "unicode").await;
    }
    refused(&app, r#"{"name": "\ud800"}"#, bad, "The body is not JSON").await;
    refused(&app, "{\"name\": \"a\u{0}b\"}", bad, "control character").await;
    refused(&app, vec![b' '; (1 << 20) + 1], StatusCode::PAYLOAD_TOO_LARGE, "1048576 bytes").await;
}

#[tokio::test]
async fn an_exceeded_limit_is_named_and_the_value_is_not_repeated() {
    let app = TestApp::new().await;
    let huge = "x".repeat((1 << 20) - 100);
    for (body, fault) in [
        (json!({"name": huge}), "name must be 1 to 63"),
        (json!({"target": huge}), "target must be host:port"),
        (json!({ (huge.clone()): 1 }), "xxx is not a known property"),
        (json!({"tags": {(huge.clone()): "a"}}), "tags must have names of 1 to 63"),
        (json!({"tags": {"a": huge}}), "tags must have values of at most 255"),
        (json!({"allowedSources": [huge]}), "allowedSources must be"),
    ] {
        refused(&app, body.to_string(), StatusCode::BAD_REQUEST, fault).await;
    }
    // A name that makes the body exceed the size limit.
    let larger = json!({"name": "x".repeat(1 << 20)}).to_string();
    refused(&app, larger, StatusCode::PAYLOAD_TOO_LARGE, "1048576 bytes").await;
    let many: serde_json::Map<_, _> = (0..50_000).map(|n| (format!("p{n}"), json!(n))).collect();
    refused(&app, Value::Object(many).to_string(), StatusCode::BAD_REQUEST, "is not a known property").await;
    let list = json!({"allowedSources": vec!["x"; 100_000]});
    refused(&app, list.to_string(), StatusCode::BAD_REQUEST, "allowedSources").await;
}

/// Sends every string property with a NUL character, with half a megabyte, and with control characters.
#[tokio::test]
async fn no_string_property_accepts_a_nul_or_half_a_megabyte() {
    let (app, made, site) = TestApp::with_site().await;
    let share_body = share(&made, &site.z_id, "app-db", 8443);
    let frontdoor = json!({"organizationId": "acme", "defaultNamespaceName": "prod"});
    let environment = format!("environments/{}", site.environment);
    let (shares, tunnels) = ("ipsec-shares", "ipsec-tunnels");
    for (method, path, body, properties) in [
        (
            Method::POST,
            shares,
            share_body,
            &["name", "ipsecTunnelId", "envZId", "target", "locationId", "proxyProtocol"][..],
        ),
        (
            Method::POST,
            tunnels,
            tunnel("b", 2),
            &["name", "locationId", "peerPublicIp", "peerCidr", "peerId", "preSharedKey"],
        ),
        (Method::POST, "/frontdoor/v2", frontdoor, &["organizationId", "defaultNamespaceName"]),
        (Method::PATCH, &environment, json!({}), &["name"]),
        (Method::POST, "agents/enrollments", json!({}), &["environmentId"]),
        (Method::POST, &format!("{}/psk", at(tunnels, &made)), json!({}), &["preSharedKey"]),
        (Method::POST, "/frontdoor/v2/api-accounts", json!({"scopes": ["frontdoor.read"]}), &["name"]),
    ] {
        for property in properties {
            for text in ["a\u{0}b", &"a".repeat(1 << 19), "\u{202e}\u{7f}"] {
                let body = with(body.clone(), json!({ *property: text }));
                let answer = send(&app, method.clone(), path, body.to_string()).await;
                assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {property}: {}", answer.text);
                let said = answer.body["message"].as_str().unwrap();
                assert!(said.contains(property), "{path} {property}: {said}");
            }
        }
    }
}

/// Sends a NUL character in every list or map of strings.
#[tokio::test]
async fn no_list_of_strings_accepts_a_nul() {
    let (app, made, site) = TestApp::with_site().await;
    let share = share(&made, &site.z_id, "app-db", 8443);
    let account = json!({"name": "a", "scopes": ["frontdoor.read"]});
    for (path, body, change, property) in [
        ("ipsec-shares", &share, json!({"tags": {"a": "b\u{0}"}}), "tags"),
        ("ipsec-shares", &share, json!({"tags": {"a\u{0}": "b"}}), "tags"),
        ("ipsec-shares", &share, json!({"allowedSources": ["172.31.0.0/24\u{0}"]}), "allowedSources"),
        ("ipsec-tunnels", &tunnel("b", 2), json!({"tags": {"a": "\u{0}"}}), "tags"),
        ("/frontdoor/v2/api-accounts", &account, json!({"scopes": ["frontdoor.read\u{0}"]}), "scopes"),
        ("/frontdoor/v2/api-accounts", &account, json!({"frontdoorIds": ["\u{0}"]}), "frontdoorIds"),
        (
            "/frontdoor/v2/api-accounts",
            &account,
            json!({"expiresAt": "2100-01-01T00:00:00Z\u{0}"}),
            "expiresAt",
        ),
        ("/frontdoor/v2/api-accounts", &account, json!({"organizationId": "a\u{0}"}), "organizationId"),
    ] {
        let answer = send(&app, Method::POST, path, with(body.clone(), change).to_string()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path} {property}: {}", answer.text);
        let said = answer.body["message"].as_str().unwrap();
        assert!(said.starts_with(property) && !said.contains('\0'), "{path} {property}: {said}");
    }
}

#[tokio::test]
async fn long_or_invalid_paths_and_queries_are_refused() {
    let (app, made, site) = TestApp::with_site().await;
    let share = app.share(&made, &site.z_id, "app-db", 8443).await;
    app.settle(&made, wicketgate_model::Status::Deployed).await;
    let (long, many) = ("x".repeat(60_000), "a=1&".repeat(10_000));
    let metrics = format!("{}/metrics", at("ipsec-shares", &share));
    let config = format!("{}/vpn-config", at("ipsec-tunnels", &made));
    let most = "The query must not have more than 200 parameters";
    let utf8 = "The query must be UTF-8, percent-encoded";
    let bad = StatusCode::BAD_REQUEST;
    for (path, status, message) in [
        (format!("ipsec-shares?{many}"), bad, most),
        (format!("{metrics}?{many}"), bad, most),
        (format!("{config}?{many}"), bad, most),
        (format!("/frontdoor/v2?{many}"), bad, most),
        (format!("ipsec-shares?{long}=1"), bad, "xxx is not a known parameter"),
        (format!("ipsec-shares?sort={long}"), bad, "sort must name a property of the list"),
        (format!("ipsec-shares?sort=name,{long}"), bad, "sort must be name, name,asc or name,desc"),
        (format!("ipsec-shares?page=1{}", "0".repeat(60_000)), bad, "page must be 0 or more"),
        (format!("ipsec-shares?status={long}"), bad, "Value for status must be of type enum"),
        (format!("{metrics}?duration={long}"), bad, "duration must be like"),
        (format!("{metrics}?duration={}d", "9".repeat(60_000)), bad, "duration must be"),
        (format!("{metrics}?{long}=1"), bad, "xxx is not a known parameter"),
        (format!("{config}?format={long}"), bad, "format must be"),
        ("ipsec-shares?name=%ff".to_owned(), bad, utf8),
        ("ipsec-shares?%c0%80=1".to_owned(), bad, utf8),
        ("executions?actor=%ed%a0%80".to_owned(), bad, utf8),
        ("ipsec-shares?name=a%00".to_owned(), bad, "Value for name must be of type string"),
        ("ipsec-shares?name%00=a".to_owned(), bad, "name is not a known parameter"),
        ("ipsec-shares/%ff".to_owned(), bad, "The path must be UTF-8, percent-encoded"),
        ("ipsec-shares/shr-%00".to_owned(), StatusCode::NOT_FOUND, "IPsec share shr- not found"),
        (format!("ipsec-shares/{long}"), StatusCode::NOT_FOUND, "xxx not found"),
        (format!("environments/{long}"), StatusCode::NOT_FOUND, "xxx not found"),
        (long.clone(), StatusCode::NOT_FOUND, "There is nothing at /"),
        (format!("/frontdoor/v2/{long}/ipsec-shares"), StatusCode::FORBIDDEN, "xxx not found"),
    ] {
        let shown = &path[..path.len().min(60)];
        let answer = app.get(&path).await;
        assert_eq!(answer.status, status, "{shown}: {}", answer.text);
        let said = answer.body["message"].as_str().unwrap();
        assert!(said.contains(message) && said.len() < 500, "{shown}: {said}");
    }
    // Valid UTF-8 is accepted, the replacement character U+FFFD included.
    for name in ["%ef%bf%bd", "%C3%BC", "100%25", "50%"] {
        assert_eq!(app.get(&format!("ipsec-shares?name={name}")).await.status, StatusCode::OK, "{name}");
    }
    let put = app.put(&format!("ipsec-shares/{long}/check"), json!({})).await;
    assert_eq!(put.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(put.text.len() < 500, "{} bytes", put.text.len());
}

#[tokio::test]
async fn malicious_token_requests_are_refused() {
    let app = TestApp::new().await;
    let (json, form) = ("application/json", "application/x-www-form-urlencoded");
    for (content_type, body) in [
        (json, format!("{{\"grant_type\": {}", "[".repeat(50_000)).into_bytes()),
        (json, br#"{"grant_type": "client_credentials", "grant_type": "client_credentials"}"#.to_vec()),
        (json, br#"{"grant_type": "client_credentials", "client_id": 1e999}"#.to_vec()),
        (
            json,
            br#"{"grant_type": "client_credentials", "client_id": "a\u0000", "client_secret": "\u0000"}"#
                .to_vec(),
        ),
        (json, b"{\"grant_type\": \"\xff\"}".to_vec()),
        (form, b"grant_type=client_credentials&client_id=%ff&client_secret=%00".to_vec()),
        (form, "grant_type=client_credentials&".repeat(10_000).into_bytes()),
        (form, "x=y&".repeat(10_000).into_bytes()),
        (form, format!("grant_type=client_credentials&client_id={}", "x".repeat(1 << 19)).into_bytes()),
        (form, vec![b'x'; (1 << 20) + 1]),
    ] {
        let request = Request::post("/oauth/token").header("content-type", content_type);
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = app.send(request.body(body.into()).unwrap()).await;
        assert!(answer.status.is_client_error(), "{shown}: {}", answer.status);
        assert!(answer.body["error"].is_string() && answer.text.len() < 500, "{shown}: {}", answer.text);
    }
}

#[tokio::test]
async fn no_answer_is_taken_for_another_type_or_kept_for_others() {
    let app = TestApp::new().await;
    for path in ["/", "/docs", "/docs/reasons", "/livez", "/openapi.json", "/frontdoor/v2", "/no/such/path"] {
        let request = Request::get(path).header("authorization", format!("Bearer {TOKEN}"));
        let headers = app.send(request.body(Body::empty()).unwrap()).await.headers;
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        let is_public = ["/docs/reasons", "/openapi.json"].contains(&path);
        let kept = if is_public { "public, max-age=300" } else { "private, no-cache" };
        assert_eq!(headers["cache-control"], kept, "{path}");
    }
}
