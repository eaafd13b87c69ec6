use crate::harness::{Answer, TestApp, at, tunnel, with};
use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use wicketgate_server::document;

const LIST: &str = "/docs/reasons";

async fn open(app: &TestApp, path: &str, accept: &str) -> Answer {
    app.send(Request::get(path).header("accept", accept).body(Body::empty()).unwrap()).await
}

/// The names of a closed list that the document has.
fn listed(pointer: &str) -> Vec<String> {
    let document = document();
    let names = document.pointer(&format!("/components/schemas/{pointer}/enum")).unwrap().as_array().unwrap();
    names.iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn each_reason_and_error_of_the_document_has_a_page() {
    let app = TestApp::new().await;
    let all: BTreeSet<_> = [
        "StatusDetail/properties/reason",
        "Connection/properties/lastError/properties/reason",
        "Connection/properties/warnings/items/properties/reason",
        "Error/properties/error",
        "OAuthError/properties/error",
    ]
    .into_iter()
    .flat_map(listed)
    .collect();
    let list = open(&app, LIST, "*/*").await;
    assert!(all.len() > 50 && list.text.lines().count() > all.len(), "{}", list.text);
    for name in all {
        let path = format!("{LIST}/{name}");
        let text = open(&app, &path, "*/*").await;
        assert_eq!(text.headers["content-type"], "text/plain; charset=utf-8");
        assert!(text.text.starts_with(&name) && text.text.contains("\nCure: "), "{}", text.text);
        assert!(list.text.contains(&format!("{name}: ")), "{name}");
        let html = open(&app, &path, "text/html,application/xhtml+xml,*/*;q=0.8").await;
        assert_eq!(html.headers["content-type"], "text/html; charset=utf-8");
        let policy = html.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(html.text.contains(&format!("<h1>{name}</h1>")), "{}", html.text);
    }
    let unknown = open(&app, &format!("{LIST}/%3Cscript%3E"), "text/html").await;
    assert_eq!(
        (unknown.status, &unknown.headers["content-type"]),
        (StatusCode::NOT_FOUND, &"application/json".parse().unwrap())
    );
    assert_eq!(unknown.body["message"], "There is no reason %3Cscript%3E; see /docs/reasons");
}

/// Follows the link to the page of `name`.
async fn leads_to(app: &TestApp, with_links: &Value, name: &str) {
    let href = with_links["_links"]["help"]["href"].as_str().unwrap();
    let page = open(app, href, "*/*").await;
    assert_eq!(page.status, StatusCode::OK, "{href}");
    assert!(page.text.starts_with(name), "{href}: {}", page.text);
}

#[tokio::test]
async fn errors_and_statuses_link_to_their_page() {
    let app = TestApp::new().await;
    let made = app.post("ipsec-tunnels", tunnel("customer-a", 1)).await;
    leads_to(&app, &made.body["statusDetail"], "Pending").await;
    let path = at("ipsec-tunnels", &made.body);
    leads_to(&app, &app.get_hal(&path).await.body["statusDetail"], "Pending").await;
    let wrong = with(tunnel("customer-b", 2), json!({"peerCidr": "x", "tags": 1}));
    for (answer, error) in [
        (app.post("ipsec-tunnels", tunnel("customer-a", 1)).await, "conflict"),
        (app.post("ipsec-tunnels", wrong).await, "invalid_request"),
        (app.get("ipsec-tunnels/none").await, "not_found"),
        (app.get_as("wga_another", &path).await, "unauthorized"),
        (app.get("/nowhere").await, "not_found"),
    ] {
        assert_eq!(answer.body["error"], error, "{}", answer.text);
        leads_to(&app, &answer.body, error).await;
    }
    let request = Request::post("/oauth/token").header("content-type", "application/json");
    let client = json!({"grant_type": "client_credentials", "client_id": "apa-1", "client_secret": "wrong"});
    let refused = app.send(request.body(Body::from(client.to_string())).unwrap()).await;
    let uri = refused.body["error_uri"].as_str().unwrap();
    assert!(open(&app, uri, "*/*").await.text.starts_with("invalid_client"), "{}", refused.text);
}
