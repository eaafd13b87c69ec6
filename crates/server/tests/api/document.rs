use crate::harness::TestApp;
use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use std::collections::BTreeSet;
use wicketgate_server::document;

#[tokio::test]
async fn the_document_and_its_page_need_no_token_and_load_nothing_external() {
    let app = TestApp::new().await;
    let get = async |path: &str| app.send(Request::get(path).body(Body::empty()).unwrap()).await;
    let answer = get("/openapi.json").await;
    assert_eq!(
        (answer.status, &answer.headers["content-type"]),
        (StatusCode::OK, &"application/json".parse().unwrap())
    );
    assert_eq!(answer.body, document());
    let page = get("/docs").await;
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(!page.text.contains("://"), "the page must work without internet access");
}

#[tokio::test]
async fn it_describes_exactly_the_methods_of_the_routes() {
    let app = TestApp::new().await;
    for (path, item) in document()["paths"].as_object().unwrap() {
        let path = path.replace("{frontdoorId}", &app.frontdoor.to_string()).replace("{id}", "x");
        let request = Request::builder().method("PROPFIND").uri(&path).body(Body::empty()).unwrap();
        let answer = app.send(request).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let allowed = answer.headers["allow"].to_str().unwrap().split(',').filter(|m| *m != "HEAD");
        let allowed: BTreeSet<_> = allowed.map(str::to_ascii_lowercase).collect();
        let described: BTreeSet<_> = item.as_object().unwrap().keys().cloned().collect();
        assert_eq!(described, allowed, "{path}");
    }
}
