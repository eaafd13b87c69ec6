use crate::harness::{TestApp, at, hello, tunnel, with};
use axum::http::StatusCode;
use insta::{assert_json_snapshot, assert_snapshot};
use serde_json::json;
use wicketgate_link::GatewayHello;
use wicketgate_model::{EspMode, Status};

const KEY: &str = "0x\"}quoted # and \\ more";

#[tokio::test]
async fn the_configuration_has_all_that_a_remote_site_needs() {
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
    for bad in ["format=cisco", "fromat=strongswan", "format=json&format=json", "format="] {
        assert_eq!(app.get(&format!("{path}?{bad}")).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    app.gateway.view.linked(GatewayHello { public_address: None, ..hello(EspMode::Off) });
    let without = app.get(&path).await;
    assert_eq!(without.status, StatusCode::CONFLICT);
    assert_eq!(without.body["message"], "The gateway has no public address: it runs without IPsec");
    assert!(app.get(&at("ipsec-tunnels", &made)).await.body.get("gatewayPublicIp").is_none());
}

#[tokio::test]
async fn before_the_gateway_connects_there_is_no_configuration_yet() {
    let app = TestApp::unlinked(None).await;
    let made = app.post("ipsec-tunnels", tunnel("customer-a", 1)).await.body;
    app.settle(&made, Status::Deployed).await;
    let path = format!("{}/vpn-config", at("ipsec-tunnels", &made));
    let early = app.get(&path).await;
    assert_eq!(early.status, StatusCode::SERVICE_UNAVAILABLE, "{}", early.text);
    assert_eq!(early.body["error"], "gateway_not_connected");
    assert!(early.headers.contains_key("retry-after"));
    assert_eq!(app.get("executions?action=READ_KEY").await.body["totalElements"], 0);
    app.gateway.view.linked(hello(EspMode::Userland));
    assert_eq!(app.get(&path).await.status, StatusCode::OK);
    // What it has told holds while it is away.
    app.gateway.view.lost(jiff::Timestamp::now());
    assert_eq!(app.get(&path).await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_format_is_rendered_or_refused_with_a_reason() {
    let app = TestApp::new().await;
    let body = with(
        tunnel("customer-a", 1),
        json!({"preSharedKey": KEY, "ikeProposals": ["aes256gcm16-prfsha256-x25519"]}),
    );
    let made = app.post("ipsec-tunnels", body).await.body;
    let path = format!("{}/vpn-config", at("ipsec-tunnels", &made));
    app.settle(&made, Status::Deployed).await;
    let get = async |format: &str| app.get(&format!("{path}?format={format}")).await;
    for (format, refusal) in [
        ("libreswan", None),
        ("vyos", None),
        ("pfsense", None),
        ("fortinet", None),
        (
            "cisco-ios",
            Some("Cisco IOS XE supports none of the tunnel's ikeProposals: aes256gcm16-prfsha256-x25519"),
        ),
        ("aws", Some("AWS supports none of the tunnel's ikeProposals: aes256gcm16-prfsha256-x25519")),
    ] {
        let answer = get(format).await;
        match refusal {
            None => assert_eq!(answer.status, StatusCode::OK, "{format}: {}", answer.text),
            Some(refusal) => {
                assert_eq!(
                    (answer.status, answer.body["message"].as_str()),
                    (StatusCode::CONFLICT, Some(refusal))
                );
            }
        }
    }
    app.patch(&at("ipsec-tunnels", &made), json!({"ikeProposals": null})).await;
    app.settle(&made, Status::Deployed).await;
    assert_eq!(get("cisco-ios").await.status, StatusCode::OK);
    let refused = get("cisco-asa").await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let message = refused.body["message"].as_str().unwrap();
    assert!(message.starts_with("A Cisco ASA does not support the tunnel's pre-shared key: "), "{message}");
    assert!(!refused.text.contains("quoted"));
}

/// Every answer that has the key is recorded, and no other answer has it.
#[tokio::test]
async fn every_way_to_the_key_is_recorded() {
    const KEY: &str = "AnswersWithThisKeyAreRecorded0";
    let app = TestApp::new().await;
    let reads = async || app.get("executions?action=READ_KEY").await.body["totalElements"].as_u64().unwrap();
    let made = app.post("ipsec-tunnels", with(tunnel("customer-a", 1), json!({"preSharedKey": KEY}))).await;
    let path = at("ipsec-tunnels", &made.body);
    let renamed = app.patch(&path, json!({"name": "b"})).await;
    let replaced = app.post(&format!("{path}/psk"), json!({"preSharedKey": KEY})).await;
    app.settle(&made.body, Status::Deployed).await;
    let (read, list) = (app.get(&path).await, app.get("ipsec-tunnels").await);
    for answer in [&made, &renamed, &replaced, &read, &list] {
        assert!(answer.status.is_success() && !answer.text.contains(KEY), "{}", answer.text);
    }
    assert_eq!(reads().await, 0);
    let link = app.post(&format!("{path}/handover-links"), json!({})).await.body;
    let opened = app.post("/site/open", json!({"token": link["token"]})).await.body;
    let document = app.get("/openapi.json").await.body;
    let call = &document["paths"]["/frontdoor/v2/{frontdoorId}/ipsec-tunnels/{id}/vpn-config"]["get"];
    let parameters = call["parameters"].as_array().unwrap();
    let formats = parameters.iter().find_map(|parameter| parameter["schema"]["enum"].as_array()).unwrap();
    assert!(formats.len() > 10, "{formats:?}");
    let mut answered = 0;
    for format in formats.iter().map(|format| format.as_str().unwrap()) {
        let body = json!({"session": opened["session"], "format": format});
        for is_of_site in [false, true] {
            let answer = match is_of_site {
                false => app.get(&format!("{path}/vpn-config?format={format}")).await,
                true => app.post("/site/configuration", body.clone()).await,
            };
            // A device that does not support the key or the algorithms is told so. The others have it in their own form.
            let is_given = answer.status.is_success();
            assert!(is_given || !answer.text.contains(KEY), "{format}: {}", answer.text);
            answered += u64::from(is_given);
            assert_eq!(reads().await, answered, "{format}");
        }
    }
    assert!(answered > 10, "{answered}");
}

#[tokio::test]
async fn each_read_of_the_key_is_recorded_with_its_actor() {
    let app = TestApp::new().await;
    let made = app.post("ipsec-tunnels", tunnel("customer-a", 1)).await.body;
    let path = format!("{}/vpn-config", at("ipsec-tunnels", &made));
    let reads = async || {
        let list = app.get("executions?action=READ_KEY").await.body;
        let actors =
            list["content"].as_array().unwrap().iter().map(|x| x["actor"].as_str().unwrap().to_owned());
        actors.collect::<Vec<_>>()
    };
    app.get(&path).await;
    assert!(reads().await.is_empty(), "no configuration was returned yet: the tunnel is not DEPLOYED");
    app.settle(&made, Status::Deployed).await;
    let reader = app.account(json!({"scopes": ["frontdoor.read"]})).await;
    let writer = app.account(json!({"scopes": ["frontdoor.read", "frontdoor.write"]})).await;
    let secret = |account: &serde_json::Value| account["clientSecret"].as_str().unwrap().to_owned();
    assert_eq!(app.get_as(&secret(&reader), &path).await.status, StatusCode::FORBIDDEN);
    assert!(reads().await.is_empty());
    let given = app.get_as(&secret(&writer), &path).await;
    assert_eq!(given.status, StatusCode::OK);
    assert!(given.headers.get("etag").is_none(), "an ETag would be a hash of the key");
    app.get(&format!("{path}?format=strongswan")).await;
    let actors = reads().await;
    assert_eq!((actors.len(), actors[1].as_str()), (2, "admin"));
    assert_ne!(actors[0], "admin");
    // A conditional request gets a complete answer and is recorded.
    let conditional = axum::http::Request::get(app.path(&path))
        .header("authorization", format!("Bearer {}", crate::harness::TOKEN))
        .header("if-none-match", "*");
    let answer = app.send(conditional.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!((answer.status, reads().await.len()), (StatusCode::OK, 3), "{}", answer.text);
    // A read does not change the tunnel.
    assert_eq!(app.get(&at("ipsec-tunnels", &made)).await.body["status"], "DEPLOYED");
}
