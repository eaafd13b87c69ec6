//! Sessions of the web console.

use crate::harness::{Answer, TOKEN, TestApp, tunnel};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode, request::Builder},
};
use insta::assert_json_snapshot;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A browser that has signed in.
pub(crate) struct Browser {
    /// Of the `Cookie` header.
    pub(crate) cookie: String,
    pub(crate) csrf_token: String,
}

impl Browser {
    async fn sign_in(app: &TestApp, token: &str) -> Self {
        let answer = begin(app, token).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        let cookie = answer.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap();
        let csrf_token = answer.body["csrfToken"].as_str().unwrap();
        Self { cookie: cookie.to_owned(), csrf_token: csrf_token.to_owned() }
    }

    fn request(&self, method: Method, path: &str) -> Builder {
        Request::builder().method(method).uri(path).header("cookie", &self.cookie)
    }

    async fn get(&self, app: &TestApp, path: &str) -> Answer {
        app.send(self.request(Method::GET, &app.path(path)).body(Body::empty()).unwrap()).await
    }

    async fn call(&self, app: &TestApp, method: Method, path: &str, body: &Value) -> Answer {
        let request = self
            .request(method, &app.path(path))
            .header("content-type", "application/json")
            .header("x-csrf-token", &self.csrf_token);
        app.send(request.body(body.to_string().into()).unwrap()).await
    }

    async fn end(&self, app: &TestApp, query: &str) -> StatusCode {
        let path = format!("/console/session{query}");
        let request = self.request(Method::DELETE, &path).header("x-csrf-token", &self.csrf_token);
        app.send(request.body(Body::empty()).unwrap()).await.status
    }

    async fn status(&self, app: &TestApp) -> (StatusCode, Value) {
        let answer = self.get(app, "/console/session").await;
        (answer.status, answer.body["error"].clone())
    }
}

async fn begin(app: &TestApp, token: &str) -> Answer {
    let request = Request::post("/console/session").header("content-type", "application/json");
    app.send(request.body(json!({"token": token}).to_string().into()).unwrap()).await
}

fn ended() -> (StatusCode, Value) {
    (StatusCode::UNAUTHORIZED, json!("session_expired"))
}

#[tokio::test]
async fn a_session_permits_what_its_token_does() {
    let app = TestApp::new().await;
    let answer = begin(&app, TOKEN).await;
    let mut shown = app.shown(&answer);
    shown["body"]["csrfToken"] = "[csrf]".into();
    shown["body"]["expiresAt"] = "[time]".into();
    assert_json_snapshot!("session", shown);
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"), "{cookie}");
    assert_eq!(answer.headers["cache-control"], "no-store");

    let browser = Browser::sign_in(&app, TOKEN).await;
    let made = browser.call(&app, Method::POST, "ipsec-tunnels", &tunnel("a", 1)).await;
    assert_eq!((made.status, &made.body["createdBy"]), (StatusCode::ACCEPTED, &json!("admin")));
    assert_eq!(browser.get(&app, "ipsec-tunnels").await.status, StatusCode::OK);

    let reader = app.account(json!({"scopes": ["frontdoor.read"]})).await;
    let reader = Browser::sign_in(&app, reader["clientSecret"].as_str().unwrap()).await;
    assert_eq!(reader.get(&app, "ipsec-tunnels").await.status, StatusCode::OK);
    let refused = reader.call(&app, Method::POST, "ipsec-tunnels", &tunnel("b", 2)).await;
    assert_eq!(refused.body["message"], "The token lacks the scope frontdoor.write");
}

#[tokio::test]
async fn a_wrong_token_begins_nothing() {
    let app = TestApp::new().await;
    let wrong = begin(&app, "wga_another-token-of-these-tests").await;
    assert!(wrong.headers.get("set-cookie").is_none());
    assert_json_snapshot!("wrong_token", app.shown(&wrong));
    assert_json_snapshot!("empty_token", app.shown(&begin(&app, " ").await));
    // A page of another origin can send a form, and no JSON.
    let form = Request::post("/console/session").header("content-type", "text/plain");
    let form = app.send(form.body(json!({"token": TOKEN}).to_string().into()).unwrap()).await;
    assert_eq!(form.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn another_origin_cannot_use_the_cookie() {
    let app = TestApp::new().await;
    let (browser, other) = (Browser::sign_in(&app, TOKEN).await, Browser::sign_in(&app, TOKEN).await);
    let path = app.path("ipsec-tunnels");
    let body = || Body::from(tunnel("a", 1).to_string());
    let request = || browser.request(Method::POST, &path).header("content-type", "application/json");
    let without = app.send(request().body(body()).unwrap()).await;
    assert_json_snapshot!("without_csrf_token", app.shown(&without));
    for token in ["", "x", other.csrf_token.as_str()] {
        let answer = app.send(request().header("x-csrf-token", token).body(body()).unwrap()).await;
        assert_eq!(answer.body["error"], "csrf_token_missing", "{token}");
    }
    // An idempotency key is claimed before the handler authenticates.
    let keyed = request().header("idempotency-key", "k");
    assert_eq!(app.send(keyed.body(body()).unwrap()).await.status, StatusCode::FORBIDDEN);
    for (site, status) in [
        ("same-origin", StatusCode::OK),
        ("none", StatusCode::OK),
        ("same-site", StatusCode::FORBIDDEN),
        ("cross-site", StatusCode::FORBIDDEN),
    ] {
        let read = browser.request(Method::GET, &path).header("sec-fetch-site", site);
        assert_eq!(app.send(read.body(Body::empty()).unwrap()).await.status, status, "{site}");
    }
    assert_eq!(app.get("ipsec-tunnels").await.body["totalElements"], 0);
}

#[tokio::test]
async fn a_session_ends_with_what_it_was_begun_with() {
    let app = TestApp::new().await;
    let account = app.account(json!({"scopes": ["frontdoor.read", "frontdoor.write"]})).await;
    let browser = Browser::sign_in(&app, account["clientSecret"].as_str().unwrap()).await;
    assert_eq!(browser.status(&app).await.0, StatusCode::OK);
    let revoked = format!("/frontdoor/v2/api-accounts/{}", account["clientId"].as_str().unwrap());
    assert_eq!(app.delete(&revoked).await.status, StatusCode::NO_CONTENT);
    assert_eq!(browser.status(&app).await, ended());
    assert_eq!(browser.get(&app, "ipsec-tunnels").await.body["error"], "session_expired");
}

#[tokio::test]
async fn signing_out_ends_one_session_or_all_of_the_actor() {
    let app = TestApp::new().await;
    let reader = app.account(json!({"scopes": ["frontdoor.read"]})).await;
    let reader = Browser::sign_in(&app, reader["clientSecret"].as_str().unwrap()).await;
    let (one, two, three) = (
        Browser::sign_in(&app, TOKEN).await,
        Browser::sign_in(&app, TOKEN).await,
        Browser::sign_in(&app, TOKEN).await,
    );
    assert_eq!(one.end(&app, "").await, StatusCode::NO_CONTENT);
    assert_eq!(one.status(&app).await, ended());
    assert_eq!(two.status(&app).await.0, StatusCode::OK);
    assert_eq!(two.end(&app, "?all=maybe").await, StatusCode::BAD_REQUEST);
    assert_eq!(two.end(&app, "?all=true").await, StatusCode::NO_CONTENT);
    assert_eq!(three.status(&app).await, ended());
    assert_eq!(reader.status(&app).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_session_ends_by_age_and_without_use() {
    let app = TestApp::new().await;
    let session = |n: u8, used: SignedDuration, ends: SignedDuration| {
        let token = format!("a-session-of-a-test-{n}");
        let now = Timestamp::now();
        let new = wicketgate_store::NewSession {
            token_sha256: Sha256::digest(&token).into(),
            kind: wicketgate_store::SessionKind::IdentityProvider,
            actor: "oidc:alice".to_owned(),
            credential: "https://id.example default".to_owned(),
            scopes: vec!["frontdoor.read".to_owned()],
            created_at: now - used,
            expires_at: now + ends,
        };
        (token, new)
    };
    let hours = SignedDuration::from_hours;
    for (n, used, ends) in [(1, hours(2), hours(1)), (2, hours(0), hours(-1)), (3, hours(0), hours(1))] {
        let (token, new) = session(n, used, ends);
        app.store.begin_session(&new).await.unwrap();
        let browser = Browser { cookie: format!("wicketgate-session={token}"), csrf_token: String::new() };
        // Of the third, the identity provider is no longer configured.
        assert_eq!(browser.status(&app).await, ended(), "{n}");
    }
    app.store.prune(Timestamp::now()).await.unwrap();
    let kept = app.store.session(&session(2, hours(0), hours(1)).1.token_sha256).await.unwrap();
    assert!(kept.is_none(), "a session that has expired is deleted");
}

#[tokio::test]
async fn what_a_page_asks_for_by_itself_is_no_use() {
    let app = TestApp::new().await;
    let browser = Browser::sign_in(&app, TOKEN).await;
    let token = browser.cookie.split_once('=').unwrap().1;
    let token_sha256: [u8; 32] = Sha256::digest(token).into();
    let half_an_hour_ago = Timestamp::now() - SignedDuration::from_mins(30);
    app.store.session_used(&token_sha256, half_an_hour_ago).await.unwrap();
    let idle = async || {
        let used_at = app.store.session(&token_sha256).await.unwrap().unwrap().used_at;
        Timestamp::now().duration_since(used_at) >= SignedDuration::from_mins(30)
    };
    for (header, value) in [("x-background", "true"), ("accept", "text/event-stream")] {
        let request = browser.request(Method::GET, "/frontdoor/v2").header(header, value);
        app.send(request.body(Body::empty()).unwrap()).await;
        assert!(idle().await, "{header}");
    }
    assert_eq!(browser.get(&app, "/frontdoor/v2").await.status, StatusCode::OK);
    assert!(!idle().await);
}

#[tokio::test]
async fn a_header_takes_precedence_over_the_cookie() {
    let app = TestApp::new().await;
    let browser = Browser::sign_in(&app, TOKEN).await;
    let request =
        browser.request(Method::GET, &app.path("ipsec-tunnels")).header("authorization", "Bearer wrong");
    let answer = app.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status, &answer.body["error"]), (StatusCode::UNAUTHORIZED, &json!("unauthorized")));
}
