//! Callers that send more requests than a limit permits.

use crate::{
    harness::{Answer, TOKEN, TestApp},
    serving::Serving,
};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use futures_util::StreamExt as _;
use insta::assert_json_snapshot;
use serde_json::json;
use wicketgate_server::RateSetting;

fn is_refused(answer: &Answer) -> bool {
    let code = &answer.body["error"];
    (answer.status, code) == (StatusCode::TOO_MANY_REQUESTS, &json!("too_many_requests"))
}

async fn tenant(app: &TestApp) -> String {
    let organization =
        app.get(&format!("/frontdoor/v2/{}", app.frontdoor)).await.body["organizationId"].clone();
    let scopes = ["frontdoor.read", "frontdoor.write"];
    let account = app.account(json!({"organizationId": organization, "scopes": scopes})).await;
    account["clientSecret"].as_str().unwrap().to_owned()
}

/// Sends a request until it is refused: a slow machine refills what it takes.
async fn until_refused<F: Future<Output = Answer>>(mut send: impl FnMut() -> F) -> Answer {
    for _ in 0..100 {
        let answer = send().await;
        if is_refused(&answer) {
            return answer;
        }
        assert!(answer.status.is_success(), "{}", answer.text);
    }
    panic!("100 requests were not too many")
}

#[tokio::test]
async fn an_account_that_writes_too_fast_waits_and_others_do_not() {
    let app = TestApp::with_rates(&["writes=1:3", "reads=1:2"]).await;
    let (a, b) = (tenant(&app).await, tenant(&app).await);
    let write = async |who: &str| app.call_as(who, Method::POST, "agents/enrollments", Some(json!({}))).await;
    for n in 0..3 {
        assert_eq!(write(&a).await.status, StatusCode::CREATED, "{n}");
    }
    let refused = until_refused(|| write(&a)).await;
    assert_json_snapshot!("refused", app.shown(&refused));
    assert_eq!(refused.headers["retry-after"], "1");
    // Reads have a bucket of their own, and so has another account. The admin token has no limit.
    assert_eq!(app.get_as(&a, "ipsec-shares").await.status, StatusCode::OK);
    assert_eq!(write(&b).await.status, StatusCode::CREATED);
    for _ in 0..20 {
        assert_eq!(write(TOKEN).await.status, StatusCode::CREATED);
    }
    let refused = until_refused(|| app.get_as(&a, "ipsec-shares")).await;
    assert!(refused.body["message"].as_str().unwrap().contains("reads"), "{}", refused.text);
}

#[tokio::test]
async fn a_request_with_an_idempotency_key_is_counted_once() {
    let app = TestApp::with_rates(&["writes=1:1"]).await;
    let a = tenant(&app).await;
    let send = |key: usize| {
        let request = Request::post(app.path("agents/enrollments"))
            .header("authorization", format!("Bearer {a}"))
            .header("content-type", "application/json")
            .header("idempotency-key", key.to_string());
        app.send(request.body(Body::from("{}")).unwrap())
    };
    assert_eq!(send(0).await.status, StatusCode::CREATED);
    let mut keys = 1..;
    until_refused(|| send(keys.next().unwrap())).await;
}

#[tokio::test]
async fn a_long_list_counts_as_many_reads() {
    let app = TestApp::with_rates(&["reads=1:4"]).await;
    let a = tenant(&app).await;
    for n in 0..500 {
        let change = json!({"defaultNamespaceName": format!("name-{n}")});
        let path = format!("/frontdoor/v2/{}", app.frontdoor);
        let changed = app.call_as(TOKEN, Method::PATCH, &path, Some(change)).await;
        assert_eq!(changed.status, StatusCode::OK, "{}", changed.text);
    }
    // One read, and one for each hundred rows.
    assert_eq!(app.get_as(&a, "executions?size=1000").await.status, StatusCode::OK);
    assert!(is_refused(&app.get_as(&a, "executions?size=1000").await));
}

#[tokio::test]
async fn a_session_counts_as_its_account() {
    let app = TestApp::with_rates(&["reads=1:2"]).await;
    let a = tenant(&app).await;
    let sign_in = Request::post("/console/session").header("content-type", "application/json");
    let signed_in = app.send(sign_in.body(json!({"token": a}).to_string().into()).unwrap()).await;
    let cookie = signed_in.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    let by_cookie = |path: &str| {
        let request = Request::get(app.path(path)).header("cookie", cookie);
        app.send(request.body(Body::empty()).unwrap())
    };
    for path in ["ipsec-shares", "/console/session"] {
        until_refused(|| by_cookie(path)).await;
        let both = async || {
            until_refused(|| by_cookie(path)).await;
            app.get_as(&a, "ipsec-tunnels").await
        };
        until_refused(both).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_limited_by_their_address_and_a_valid_token_is_not() {
    let limit = |limits: &[&str]| limits.iter().map(|text| text.parse::<RateSetting>().unwrap()).collect();
    let serving = Serving::start(|config| {
        config.rates = limit(&["strangers=1:3"]);
        config.external.trusted_proxies = vec!["127.0.0.9".parse().unwrap()];
    })
    .await;
    let valid = format!("authorization: Bearer {TOKEN}");
    let (list, wrong) = ("GET /frontdoor/v2 HTTP/1.1", "authorization: Bearer wga_wrong");
    let ask = async |from: &str, lines: &[&str]| serving.ask(from, lines).await;
    for (from, lines, admitted) in [
        ("127.0.0.1", [list, wrong], 401),
        ("127.0.0.2", ["GET /nothing HTTP/1.1", "a: b"], 404),
        ("127.0.0.3", ["GET /.well-known/jwks.json HTTP/1.1", "a: b"], 200),
        ("127.0.0.4", ["GET /site HTTP/1.1", "a: b"], 200),
        ("127.0.0.5", [list, "a: b"], 401),
        // A client of a proxy.
        ("127.0.0.9", [list, "x-forwarded-for: 192.0.2.7"], 401),
    ] {
        let statuses = futures_util::stream::iter(0..100).then(|_| ask(from, &lines));
        let statuses = statuses.take_while(|status| std::future::ready(*status != 429));
        let before: Vec<_> = Box::pin(statuses).collect().await;
        assert!((3..100).contains(&before.len()), "{} requests of {from} were admitted", before.len());
        let is_console = |status: u16| lines[0].starts_with("GET /site ") && status == 404;
        assert!(before.iter().all(|status| *status == admitted || is_console(*status)), "{from} {before:?}");
        if from != "127.0.0.9" {
            // Who has a token does not suffer from others at its address, and a monitor sees that the process lives.
            assert_eq!(ask(from, &[list, &valid]).await, 200, "{from}");
            assert_eq!(ask(from, &["GET /livez HTTP/1.1"]).await, 200, "{from}");
        }
    }
    assert_eq!(ask("127.0.0.9", &[list, "x-forwarded-for: 192.0.2.8"]).await, 401);
    assert_eq!(ask("127.0.0.6", &[list, wrong]).await, 401);
    serving.stop().await;
}
