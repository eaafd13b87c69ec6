use crate::harness::TestApp;
use axum::{body::Body, http::Request};
use insta::assert_json_snapshot;
use wicketgate_server::gateway_status::GatewayStatus;

#[tokio::test]
async fn a_server_is_ready_when_it_can_do_its_work() {
    let app = TestApp::new().await;
    let get = async |path: &str| app.send(Request::get(path).body(Body::empty()).unwrap()).await;
    assert_eq!(get("/livez").await.text, "ok\n");
    let ready = get("/readyz").await;
    app.gateway.send_replace(GatewayStatus::default());
    app.last_run.send_modify(|run| run.error = Some("why".to_owned()));
    let offline = get("/readyz").await;
    app.store.close().await;
    let closed = get("/readyz").await;
    assert_json_snapshot!("readiness", [app.shown(&ready), app.shown(&offline), app.shown(&closed)]);
    let database = app.get("ipsec-shares").await;
    assert_json_snapshot!("no_database", app.shown(&database));
}
