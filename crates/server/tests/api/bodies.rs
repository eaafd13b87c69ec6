use crate::harness::{Answer, TOKEN, TestApp};
use axum::{body::Body, http::Request};
use insta::assert_json_snapshot;

async fn post(app: &TestApp, content_type: Option<&str>, body: impl Into<Body>) -> Answer {
    let mut request =
        Request::post(app.path("ipsec-shares")).header("authorization", format!("Bearer {TOKEN}"));
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    app.send(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn a_body_other_than_an_object_is_refused() {
    let app = TestApp::new().await;
    let json = Some("application/json; charset=utf-8");
    let deep = "[".repeat(1000);
    let mut shown = Vec::new();
    for body in ["", "{", "{\"name\": }", "[]", "7", "null", "{\"a\": 1e999}", "\u{1}", &deep, "{} {}"] {
        shown.push(app.shown(&post(&app, json, body.to_owned()).await));
    }
    shown.push(app.shown(&post(&app, json, vec![b'{', 0xff, b'}']).await));
    assert_json_snapshot!("no_object", shown);
}

#[tokio::test]
async fn a_body_with_a_wrong_content_type_or_size_is_refused() {
    let app = TestApp::new().await;
    let mut shown = Vec::new();
    for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        shown.push(app.shown(&post(&app, content_type, "{}").await));
    }
    shown.push(app.shown(&post(&app, Some("application/json"), vec![b' '; (1 << 20) + 1]).await));
    shown.push(app.shown(&post(&app, Some("application/merge-patch+json"), "[]").await));
    assert_json_snapshot!("another_kind", shown);
}
