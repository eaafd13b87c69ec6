use crate::harness::{Answer, TOKEN, TestApp, at, share, tunnel};
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};

async fn post(app: &TestApp, key: &str, path: &str, body: impl ToString) -> Answer {
    post_as(app, TOKEN, key, path, body).await
}

async fn post_as(app: &TestApp, token: &str, key: &str, path: &str, body: impl ToString) -> Answer {
    let request = Request::post(app.path(path))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .header("idempotency-key", key);
    app.send(request.body(body.to_string().into()).unwrap()).await
}

fn is_replay(answer: &Answer) -> bool {
    answer.headers.get("idempotency-replayed").is_some_and(|v| v == "true")
}

#[tokio::test]
async fn a_repeated_request_is_executed_once_and_gets_the_same_answer() {
    let (app, _, site) = TestApp::with_site().await;
    let made = post(&app, "t", "ipsec-tunnels", tunnel("b", 2)).await;
    let share = share(&made.body, &site.z_id, "app-db", 8443);
    let frontdoor = json!({"organizationId": "acme", "defaultNamespaceName": "prod"});
    for (key, path, body, status) in [
        ("t", "ipsec-tunnels", tunnel("b", 2), StatusCode::ACCEPTED),
        ("s", "ipsec-shares", share, StatusCode::ACCEPTED),
        ("f", "/frontdoor/v2", frontdoor, StatusCode::CREATED),
        ("p", &format!("{}/psk", at("ipsec-tunnels", &made.body)), json!({}), StatusCode::ACCEPTED),
    ] {
        let first = post(&app, key, path, &body).await;
        assert_eq!(first.status, status, "{path}: {}", first.text);
        let written = app.get("executions").await.body["totalElements"].clone();
        // Whitespace in the body does not matter.
        let again = post(&app, key, path, format!(" {body} ")).await;
        assert!(is_replay(&again));
        assert_eq!((again.status, &again.text), (first.status, &first.text));
        for header in ["location", "content-type", "etag"] {
            assert_eq!(again.headers.get(header), first.headers.get(header), "{header}");
        }
        assert_eq!(app.get("executions").await.body["totalElements"], written);
        let Value::Object(mut other) = body else { panic!() };
        other.insert("name".to_owned(), "another".into());
        let refused = post(&app, key, path, Value::Object(other)).await;
        assert_eq!((refused.status, &refused.body["error"]), (StatusCode::CONFLICT, &json!("conflict")));
    }
    let elsewhere = post(&app, "t", "agents/enrollments", tunnel("b", 2)).await;
    assert_eq!(elsewhere.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn of_many_concurrent_requests_one_is_executed() {
    let app = TestApp::new().await;
    let answers: Vec<_> =
        futures_util::future::join_all((0..8).map(|_| post(&app, "k", "ipsec-tunnels", tunnel("a", 1))))
            .await;
    let made: Vec<_> = answers.iter().filter(|a| a.status == StatusCode::ACCEPTED).collect();
    assert!(
        made.iter().filter(|a| !is_replay(a)).count() == 1 && made.iter().all(|a| a.text == made[0].text)
    );
    for waiting in answers.iter().filter(|a| a.status != StatusCode::ACCEPTED) {
        assert_eq!(
            (waiting.status, &waiting.headers["retry-after"]),
            (StatusCode::CONFLICT, &"1".parse().unwrap())
        );
    }
    assert_eq!(app.get("ipsec-tunnels").await.body["totalElements"], 1);
}

#[tokio::test]
async fn a_caller_that_disconnects_gets_the_answer_on_retry() {
    let app = TestApp::new().await;
    // The request is dropped after one poll, then two, and so on, until its write has begun.
    let mut looks = 1;
    let answer = loop {
        {
            let mut request = std::pin::pin!(post(&app, "k", "ipsec-tunnels", tunnel("a", 1)));
            for _ in 0..looks {
                let look =
                    std::future::poll_fn(|cx| std::task::Poll::Ready(request.as_mut().poll(cx).is_ready()));
                if look.await {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        looks += 1;
        let answer = post(&app, "k", "ipsec-tunnels", tunnel("a", 1)).await;
        if answer.status == StatusCode::ACCEPTED {
            break answer;
        }
        assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
        assert!(answer.headers.contains_key("retry-after"));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    let tunnels = app.get("ipsec-tunnels").await.body;
    assert_eq!((&tunnels["totalElements"], &tunnels["content"][0]["id"]), (&json!(1), &answer.body["id"]));
}

#[tokio::test]
async fn a_refused_request_does_not_consume_its_key() {
    let app = TestApp::new().await;
    let refused = post(&app, "k", "ipsec-tunnels", json!({})).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(post(&app, "k", "ipsec-tunnels", tunnel("a", 1)).await.status, StatusCode::ACCEPTED);
    let taken = post(&app, "l", "ipsec-tunnels", tunnel("a", 1)).await;
    assert_eq!((taken.status, is_replay(&taken)), (StatusCode::CONFLICT, false));
    for bad in ["", "a b", &"x".repeat(256)] {
        let refused = post(&app, bad, "ipsec-tunnels", tunnel("b", 2)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.body["message"].as_str().unwrap().starts_with("Idempotency-Key must"));
    }
    let unknown = Request::post(app.path("ipsec-tunnels")).header("idempotency-key", "k");
    assert_eq!(app.send(unknown.body("".into()).unwrap()).await.status, StatusCode::UNAUTHORIZED);
    // Other methods ignore the key.
    let read = Request::builder().method(Method::GET).uri(app.path("ipsec-tunnels"));
    let read = read.header("authorization", format!("Bearer {TOKEN}")).header("idempotency-key", "k");
    assert_eq!(app.send(read.body("".into()).unwrap()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_secret_is_shown_once_and_not_stored() {
    let app = TestApp::new().await;
    let made = post(&app, "k", "agents/enrollments", "{}").await;
    assert_eq!(made.status, StatusCode::CREATED);
    let code = made.body["enrollmentCode"].as_str().unwrap().to_owned();
    let again = post(&app, "k", "agents/enrollments", "{}").await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    assert!(again.body["message"].as_str().unwrap().contains("shown once"), "{}", again.text);
    assert_eq!(app.get("executions").await.body["totalElements"], 2);
    // A repeated request creates no second account and does not show the secret again.
    let account = json!({"name": "a", "scopes": ["frontdoor.read"]});
    let accounts = "/frontdoor/v2/api-accounts";
    let made = post(&app, "a", accounts, &account).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let again = post(&app, "a", accounts, &account).await;
    assert_eq!((again.status, again.body["clientSecret"].as_str()), (StatusCode::CONFLICT, None));
    assert_eq!(app.get(accounts).await.body["totalElements"], 1);
    for file in std::fs::read_dir(app.dir()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(code.len()).any(|w| w == code.as_bytes()), "{}", path.display());
        }
    }
}

#[tokio::test]
async fn a_narrower_token_does_not_get_the_answer_of_a_wider_one() {
    let app = TestApp::new().await;
    let account = app.account(json!({"scopes": ["frontdoor.read", "frontdoor.write"]})).await;
    let secret = account["clientSecret"].as_str().unwrap();
    let made = post_as(&app, secret, "k", "ipsec-tunnels", tunnel("a", 1)).await;
    assert_eq!(made.status, StatusCode::ACCEPTED);
    let asked = json!({"grant_type": "client_credentials", "client_id": account["clientId"],
        "client_secret": secret, "scope": "frontdoor.read"});
    let token = Request::post("/oauth/token").header("content-type", "application/json");
    let token = app.send(token.body(asked.to_string().into()).unwrap()).await;
    let token = token.body["access_token"].as_str().unwrap();
    let refused = post_as(&app, token, "k", "ipsec-tunnels", tunnel("a", 1)).await;
    assert_eq!((refused.status, is_replay(&refused)), (StatusCode::CONFLICT, false), "{}", refused.text);
    assert!(is_replay(&post_as(&app, secret, "k", "ipsec-tunnels", tunnel("a", 1)).await));
}
