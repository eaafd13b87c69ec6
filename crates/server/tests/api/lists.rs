use crate::harness::TestApp;
use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use insta::assert_json_snapshot;
use serde_json::json;

#[tokio::test]
async fn pages_follow_one_another() {
    let (app, tunnel, site) = TestApp::with_site().await;
    for n in 1..=5 {
        app.share(&tunnel, &site.z_id, &format!("share-{n}"), n).await;
    }
    let mut names = Vec::new();
    for page in 0..4 {
        let answer = app.get(&format!("ipsec-shares?page={page}&size=2")).await.body;
        assert_eq!((&answer["totalElements"], &answer["totalPages"]), (&json!(5), &json!(3)));
        names.extend(
            answer["content"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()),
        );
    }
    assert_eq!(names, ["share-1", "share-2", "share-3", "share-4", "share-5"]);
    assert_json_snapshot!("hal", app.shown(&app.get_hal("ipsec-shares?page=1&size=2").await));
    assert_json_snapshot!("hal_past_the_end", app.shown(&app.get_hal("ipsec-shares?page=7&size=2").await));
    let far = app.get("ipsec-shares?page=9223372036854775807&size=1000").await;
    assert_eq!((far.status, &far.body["content"]), (StatusCode::OK, &json!([])));
}

#[tokio::test]
async fn a_parameter_that_is_wrong_is_named() {
    let app = TestApp::new().await;
    for (query, message) in [
        ("page=-1", "page must be 0 or more"),
        ("page=x", "Value for page must be of integer"),
        ("page=99999999999999999999", "page must be 0 or more"),
        ("size=0", "size must be between 1 and 1000"),
        ("size=1001", "size must be between 1 and 1000"),
        ("size=", "Value for size must be of integer"),
        ("size=1&size=2", "size must be given once"),
        ("pgae=1", "pgae is not a known parameter"),
    ] {
        for list in [
            "ipsec-shares",
            "ipsec-tunnels",
            "environments",
            "agents",
            "executions",
            "locations",
            "/frontdoor/v2",
        ] {
            let answer = app.get(&format!("{list}?{query}")).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST);
            assert_eq!(
                answer.body,
                json!({"error": "invalid_request", "message": message}),
                "{list}?{query}"
            );
        }
    }
}

#[tokio::test]
async fn the_format_is_the_one_that_is_accepted() {
    let app = TestApp::new().await;
    let get = async |accept: &str| {
        let request = Request::get(app.path("ipsec-shares"))
            .header("authorization", format!("Bearer {}", crate::harness::TOKEN))
            .header("accept", accept);
        app.send(request.body(Body::empty()).unwrap()).await
    };
    assert_eq!(get("application/json").await.headers["content-type"], "application/json");
    let hal = get("application/hal+json").await;
    assert_eq!(hal.headers["content-type"], "application/hal+json");
    assert!(hal.body.get("_embedded").is_none());
    assert_json_snapshot!("not_acceptable", app.shown(&get("text/html").await));
}
