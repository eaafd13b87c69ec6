use crate::harness::{TestApp, at, tunnel, with};
use axum::http::StatusCode;
use insta::{assert_json_snapshot, assert_snapshot};
use serde_json::json;
use wicketgate_model::Status;
use wicketgate_server::state::GatewayStatus;

const KEY: &str = "0x\"}quoted # and \\ more";

#[tokio::test]
async fn a_remote_site_gets_all_it_needs() {
    let app = TestApp::new().await;
    let body = with(tunnel("customer-a", 1), json!({"preSharedKey": KEY, "peerId": "vpn@example.org"}));
    let made = app.post("ipsec-tunnels", body).await.body;
    let path = format!("{}/vpn-config", at("ipsec-tunnels", &made));
    assert_json_snapshot!("early", app.shown(&app.get(&path).await));
    app.settle(&made, Status::Deployed).await;
    let config = app.get(&path).await;
    assert_eq!(config.headers["cache-control"], "no-store");
    assert_json_snapshot!("json", config.body);
    let text = app.get(&format!("{path}?format=strongswan")).await;
    assert_eq!(text.headers["content-type"], "text/plain; charset=utf-8");
    assert_snapshot!("strongswan", text.text);
    for bad in ["format=cisco", "fromat=strongswan", "format=json&format=json"] {
        assert_eq!(app.get(&format!("{path}?{bad}")).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    app.gateway.send_replace(GatewayStatus { connected: true, esp: "off".to_owned(), public_address: None });
    assert_eq!(app.get(&path).await.status, StatusCode::CONFLICT);
    assert!(app.get(&at("ipsec-tunnels", &made)).await.body.get("gatewayPublicIp").is_none());
}
