//! Tunnels that two gateways serve.

use crate::harness::{Answer, TestApp, at, gateway_id, tunnel, with};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;
use wicketgate_model::{
    Connection, ConnectionState, Deadlines, EspMode, GatewayId, Observation, Problem, Reason, TunnelId,
};
use wicketgate_server::GatewayDirectory;
use wicketgate_store::{GatewayEpoch, GatewayFacts, NewGateway, Resource, RowReport, Store};

fn second() -> GatewayId {
    GatewayId::new(Uuid::from_u128(7))
}

/// What the database knows of all gateways, after a second one has joined the location.
pub(crate) async fn beside(store: &Store) -> GatewayDirectory {
    let other = NewGateway { id: second(), location: "local".parse().unwrap(), in_process: false };
    store.register_gateway(&other, Timestamp::now()).await.unwrap();
    let facts = GatewayFacts {
        public_address: Some([198, 51, 100, 8].into()),
        esp: Some(EspMode::Kernel),
        namespaces: None,
        max_tunnels: Some(200),
        agent_url: None,
        version: None,
    };
    let epoch = store.link_gateway(second(), Timestamp::now()).await.unwrap();
    store.gateway_introduced(&epoch, &facts).await.unwrap();
    GatewayDirectory::read(store).await.unwrap()
}

fn id(tunnel: &Value) -> TunnelId {
    tunnel["id"].as_str().unwrap().parse().unwrap()
}

/// A gateway has the tunnel ready, or fails to.
async fn observe(app: &TestApp, epoch: &GatewayEpoch, of: &Value, problem: Option<Problem>) {
    let row = app.store.tunnel(app.frontdoor, id(of)).await.unwrap().unwrap();
    let ready = problem.is_none().then_some(row.generation);
    let report = RowReport {
        resource: Resource::Tunnel(row.id),
        generation: row.generation,
        seen: Observation::Seen { ready, problem },
    };
    app.store.observe(epoch, &[report], Deadlines::default(), Timestamp::now()).await.unwrap();
}

/// A redundant tunnel, and the epoch of the second gateway's link.
async fn made(app: &TestApp) -> (Value, GatewayEpoch) {
    let epoch = app.store.link_gateway(second(), Timestamp::now()).await.unwrap();
    let made = app.post("ipsec-tunnels", with(tunnel("customer-a", 1), json!({"redundant": true}))).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.text);
    (made.body, epoch)
}

/// Gateway, address, readiness and connection of each.
fn endpoints(answer: &Answer) -> Vec<(&str, &str, bool, &str)> {
    let all = answer.body["endpoints"].as_array().unwrap().iter();
    all.map(|it| {
        let [gateway, address, state] = [&it["gatewayId"], &it["publicAddress"], &it["connection"]["state"]]
            .map(|it| it.as_str().unwrap());
        (gateway, address, it["ready"].as_bool().unwrap(), state)
    })
    .collect()
}

#[tokio::test]
async fn a_redundant_tunnel_shows_both_endpoints_and_whether_it_is_redundant_now() {
    let app = TestApp::pair().await;
    let (tunnel, epoch) = made(&app).await;
    let path = at("ipsec-tunnels", &tunnel);
    let (own, other) = (gateway_id().to_string(), second().to_string());
    let (own, other) = ((own.as_str(), "198.51.100.7"), (other.as_str(), "198.51.100.8"));
    // The second had as many tunnels, and has the greater id.
    let both = |first: (bool, &'static str), second: (bool, &'static str)| {
        vec![(own.0, own.1, first.0, first.1), (other.0, other.1, second.0, second.1)]
    };
    let down = "DOWN";
    assert_eq!((&tunnel["redundant"], &tunnel["redundancy"]), (&json!(true), &json!("NOT_MET")));
    assert_eq!(endpoints(&app.get(&path).await), both((false, down), (false, down)));
    observe(&app, &app.epoch, &tunnel, None).await;
    let one = app.get(&path).await;
    assert_eq!((&one.body["status"], &one.body["redundancy"]), (&json!("DEPLOYED"), &json!("NOT_MET")));
    assert_eq!(endpoints(&one), both((true, down), (false, down)));
    observe(&app, &epoch, &tunnel, None).await;
    let up = Connection { state: ConnectionState::Up, ..Connection::down(Timestamp::now()) };
    app.store.record_connections(&epoch, &[(id(&tunnel), up)], Timestamp::now()).await.unwrap();
    let met = app.get(&path).await;
    assert_eq!(endpoints(&met), both((true, down), (true, "UP")));
    assert_eq!((&met.body["redundancy"], &met.body["connection"]["state"]), (&json!("MET"), &json!("UP")));
    assert_eq!((met.body.get("statusDetail"), &met.body["ready"]), (None, &json!(true)));
    let listed = app.get("ipsec-tunnels?redundancy=MET").await;
    assert_eq!(listed.body["content"][0], met.body);
    assert_eq!(app.get("ipsec-tunnels?redundancy=NOT_MET").await.body["totalElements"], 0);

    observe(&app, &epoch, &tunnel, Some(Problem::new(Reason::TunnelFailed, "no room"))).await;
    let lost = app.get(&path).await;
    assert_eq!((&lost.body["status"], &lost.body["redundancy"]), (&json!("DEPLOYED"), &json!("NOT_MET")));
    assert_eq!(lost.body["statusDetail"]["reason"], "RedundancyLost");
    assert!(lost.body["statusDetail"]["message"].as_str().unwrap().contains(other.0), "{}", lost.text);
    // What gateways report is no change of another client.
    let request = Request::builder()
        .method(Method::PATCH)
        .uri(app.path(&path))
        .header("authorization", format!("Bearer {}", crate::harness::TOKEN))
        .header("content-type", "application/json")
        .header("if-match", met.headers["etag"].clone());
    let patched = app.send(request.body(Body::from(json!({"redundant": false}).to_string())).unwrap()).await;
    assert_eq!(patched.status, StatusCode::ACCEPTED, "{}", patched.text);
    assert_eq!((&patched.body["redundant"], &patched.body["redundancy"]), (&json!(false), &json!("NONE")));
}

#[tokio::test]
async fn a_configuration_has_both_gateways_and_says_where_a_device_gets_only_one() {
    let app = TestApp::pair().await;
    let (tunnel, epoch) = made(&app).await;
    let path = at("ipsec-tunnels", &tunnel);
    observe(&app, &epoch, &tunnel, None).await;
    let config = app.get(&format!("{path}/vpn-config")).await.body;
    let addresses = |of: &Value| {
        let all = of["gateways"].as_array().unwrap().iter();
        all.map(|end| end["publicIp"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(addresses(&config), ["198.51.100.7", "198.51.100.8"]);
    assert_eq!(config["gateways"][0], config["gateway"]);
    let strongswan = app.get(&format!("{path}/vpn-config?format=strongswan")).await.text;
    for address in ["198.51.100.7", "198.51.100.8"] {
        assert!(strongswan.contains(&format!("remote_addrs = {address}")), "{strongswan}");
    }
    let vyos = app.get(&format!("{path}/vpn-config?format=vyos")).await.text;
    assert!(vyos.contains("The tunnel has another gateway, 198.51.100.8"), "{vyos}");
    // The one that stays comes first.
    app.store.set_draining(gateway_id(), true, &app.act()).await.unwrap();
    let config = app.get(&format!("{path}/vpn-config")).await.body;
    assert_eq!(addresses(&config), ["198.51.100.8", "198.51.100.7"]);
    for (gateway, status) in
        [("first", StatusCode::BAD_REQUEST), ("gwy-00000000000000000000000000000009", StatusCode::NOT_FOUND)]
    {
        let log = app.get(&format!("{path}/ike-log?gatewayId={gateway}")).await;
        assert_eq!(log.status, status, "{}", log.text);
    }
}
