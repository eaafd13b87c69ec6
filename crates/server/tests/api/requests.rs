use crate::harness::{TOKEN, TestApp};
use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use std::collections::HashSet;

#[tokio::test]
async fn a_request_has_an_id() {
    let app = TestApp::new().await;
    let ask = async |id: Option<&[u8]>, path: &str| {
        let mut request = Request::get(app.path(path)).header("authorization", format!("Bearer {TOKEN}"));
        if let Some(id) = id {
            request = request.header("x-request-id", id);
        }
        let answer = app.send(request.body(Body::empty()).unwrap()).await;
        answer.headers.get("x-request-id").unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(ask(Some(b"order-7/try.2"), "locations").await, "order-7/try.2");
    // An unknown path has one, too.
    assert_eq!(ask(Some(b"order-8"), "/nowhere").await, "order-8");
    // A missing id, or one that is not safe in a log, is replaced by a generated one.
    let long = [b'a'; 129];
    let given: [Option<&[u8]>; 6] =
        [None, Some(b""), Some(b"a b"), Some(b"a\"b"), Some("ü".as_bytes()), Some(&long)];
    let mut seen = HashSet::new();
    for id in given {
        let fresh = ask(id, "locations").await;
        assert!(fresh.parse::<uuid::Uuid>().is_ok(), "{id:?}: {fresh}");
        assert!(seen.insert(fresh));
    }
}

#[tokio::test]
async fn a_body_has_a_size_limit() {
    let app = TestApp::new().await;
    let ask = async |size: usize| {
        let request = Request::post(app.path("ipsec-shares"))
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", "application/json");
        app.send(request.body(Body::from(vec![b' '; size])).unwrap()).await
    };
    assert_eq!(ask(1 << 20).await.status, StatusCode::BAD_REQUEST);
    let refused = ask((1 << 20) + 1).await;
    assert_eq!(
        (refused.status, &refused.body["error"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &"too_large".into())
    );
}
