use crate::harness::{TestApp, at, tunnel, with};
use axum::http::{Method, StatusCode};
use insta::assert_json_snapshot;
use jiff::Timestamp;
use serde_json::{Value, json};
use wicketgate_model::{
    Algorithms, ChildSa, Connection, ConnectionDoubt, ConnectionError, ConnectionFault, ConnectionState,
    ConnectionWarning, Nat, Peer, SaTimes, Status, TrafficSelectors, TunnelId,
};
use wicketgate_store::{PreviousKeys, TunnelRow};

async fn row(app: &TestApp, tunnel: &Value) -> TunnelRow {
    let id: TunnelId = tunnel["id"].as_str().unwrap().parse().unwrap();
    app.store.tunnel(app.frontdoor, id).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_tunnel_is_created_deployed_and_deleted() {
    let app = TestApp::new().await;
    let made = app.post("ipsec-tunnels", tunnel("customer-a", 1)).await;
    assert_json_snapshot!("created", app.shown(&made));
    let path = at("ipsec-tunnels", &made.body);
    assert_eq!(app.get(&path).await.body, made.body);
    app.settle(&made.body, Status::Deployed).await;
    assert_json_snapshot!("deployed", app.shown(&app.get_hal(&path).await));
    assert_json_snapshot!("deleting", app.shown(&app.delete(&path).await));
    assert_eq!(app.patch(&path, json!({"name": "b"})).await.status, StatusCode::CONFLICT);
    app.settle(&made.body, Status::Deleted).await;
    assert_eq!(app.get(&path).await.body["status"], "DELETED");
    assert_eq!(app.get("ipsec-tunnels").await.body["content"], json!([]));
}

#[tokio::test]
async fn the_gateways_own_address_is_no_peer() {
    let app = TestApp::new().await;
    let own = json!({"peerPublicIp": "198.51.100.7"});
    let refused = app.post("ipsec-tunnels", with(tunnel("a", 1), own.clone())).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let rule = "peerPublicIp must be the address of the site's device: this is the gateway's own";
    assert_eq!(refused.body["message"], rule);
    let made = app.post("ipsec-tunnels", tunnel("a", 1)).await.body;
    assert_eq!(app.patch(&at("ipsec-tunnels", &made), own).await.body["message"], rule);
}

#[tokio::test]
async fn a_tunnel_in_use_cannot_be_deleted() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let share = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
    let path = at("ipsec-tunnels", &tunnel);
    assert_json_snapshot!("in_use", app.shown(&app.delete(&path).await));
    let second = app.share(&tunnel, &site.z_id, "app-web", 443).await;
    let refused = app.delete(&path).await;
    let message = refused.body["message"].as_str().unwrap();
    let (said, list) = message.split_once("; ").unwrap();
    assert!(said.ends_with("its 2 shares: delete them first"), "{message}");
    assert_eq!(app.get(list.strip_suffix(" lists them").unwrap()).await.body["totalElements"], 2);
    app.delete(&at("ipsec-shares", &second)).await;
    app.delete(&at("ipsec-shares", &share)).await;
    assert_eq!(app.delete(&path).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_key_can_be_written_and_not_read() {
    let app = TestApp::new().await;
    let key = "a key of more than twenty characters";
    let made = app.post("ipsec-tunnels", with(tunnel("a", 1), json!({"preSharedKey": key}))).await;
    assert!(!made.text.contains(key));
    assert_eq!(row(&app, &made.body).await.spec.pre_shared_key.unwrap().expose(), key);
    let path = at("ipsec-tunnels", &made.body);
    // A PUT of what was read leaves the key unchanged.
    app.put(&path, app.get(&path).await.body).await;
    let kept = row(&app, &made.body).await;
    assert_eq!(
        (kept.spec.pre_shared_key.unwrap().expose(), kept.previous_keys),
        (key, PreviousKeys::default())
    );
    let rotated = app.call(Method::POST, &format!("{path}/psk"), None).await;
    assert_eq!((rotated.status, &rotated.body["status"]), (StatusCode::ACCEPTED, &json!("NEW")));
    let new = row(&app, &made.body).await;
    assert_ne!(new.spec.pre_shared_key.unwrap().expose(), key);
    let previous: Vec<_> = new.previous_keys.valid(Timestamp::now()).map(|(k, _)| k.expose()).collect();
    assert_eq!(previous, [key]);
    let chosen = "another key of more than twenty letters";
    app.post(&format!("{path}/psk"), json!({"preSharedKey": chosen})).await;
    assert_eq!(row(&app, &made.body).await.spec.pre_shared_key.unwrap().expose(), chosen);
    let short = app.post(&format!("{path}/psk"), json!({"preSharedKey": "secret-x"})).await;
    assert_eq!(short.status, StatusCode::BAD_REQUEST);
    assert!(!short.text.contains("secret-x"));
}

#[tokio::test]
async fn the_identity_follows_the_address_unless_it_is_set() {
    let app = TestApp::new().await;
    let made = app.post("ipsec-tunnels", tunnel("a", 1)).await.body;
    let path = at("ipsec-tunnels", &made);
    let moved = app.patch(&path, json!({"peerPublicIp": "203.0.113.9"})).await;
    assert_eq!(moved.body["peerId"], "203.0.113.9");
    app.patch(&path, json!({"peerId": "vpn.example.org"})).await;
    let moved = app.patch(&path, json!({"peerPublicIp": "203.0.113.10"})).await;
    assert_eq!(moved.body["peerId"], "vpn.example.org");
    assert_eq!(app.patch(&path, json!({"peerId": null})).await.body["peerId"], "203.0.113.10");
}

#[tokio::test]
async fn faults_and_conflicts_are_reported() {
    let app = TestApp::new().await;
    app.post("ipsec-tunnels", tunnel("a", 1)).await;
    let taken = app.post("ipsec-tunnels", tunnel("b", 1)).await;
    let name = app.post("ipsec-tunnels", tunnel("a", 2)).await;
    assert_json_snapshot!("conflicts", [app.shown(&taken), app.shown(&name)]);
    let other = app
        .post(
            "/frontdoor/v2",
            json!({"organizationId": "other", "defaultNamespaceName": "x", "ipsecSharesEnabled": true}),
        )
        .await;
    let foreign = app
        .post(&format!("/frontdoor/v2/{}/ipsec-tunnels", other.body["id"].as_str().unwrap()), tunnel("c", 1))
        .await;
    assert_eq!(foreign.status, StatusCode::CONFLICT);
    assert_eq!(foreign.body["message"], "peerPublicIp is not available; choose another value");
    let body = json!({"name": "a b", "locationId": "mars", "peerPublicIp": "::1", "peerCidr": "10.1.2.3/16",
        "peerId": "a\"b", "preSharedKey": 5, "loadBalancerIp": "1.2.3.4", "mtu": 1400});
    assert_json_snapshot!("faults", app.shown(&app.post("ipsec-tunnels", body).await));
    // Two tunnels may have the same network.
    assert_eq!(app.post("ipsec-tunnels", tunnel("b", 3)).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn previous_keys_are_valid_for_the_requested_time() {
    let app = TestApp::new().await;
    let made = app.post("ipsec-tunnels", tunnel("a", 1)).await.body;
    let path = at("ipsec-tunnels", &made);
    assert!(made.get("previousKeyUntil").is_none());
    let psk = format!("{path}/psk");
    let first = row(&app, &made).await.spec.pre_shared_key.unwrap();
    let rotated = app.post(&psk, json!({"graceSeconds": 3600})).await.body;
    let until: Timestamp = rotated["previousKeyUntil"].as_str().unwrap().parse().unwrap();
    let left = until.duration_since(Timestamp::now()).as_secs();
    assert!((3500..=3600).contains(&left), "{left}");
    let second = row(&app, &made).await.spec.pre_shared_key.unwrap();
    // A second rotation before the site has the second key: the first key stays valid, for no longer than before.
    let again = app.post(&psk, json!({})).await.body;
    let day = again["previousKeyUntil"].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!(day > until);
    let previous: Vec<_> = row(&app, &made).await.previous_keys.valid(Timestamp::now()).cloned().collect();
    assert_eq!(previous, [(second, day), (first, until)]);
    // Another change of the tunnel does not affect the keys.
    app.patch(&path, json!({"name": "b"})).await;
    assert_eq!(row(&app, &made).await.previous_keys.valid(Timestamp::now()).count(), 2);
    let at_once = app.post(&psk, json!({"graceSeconds": 0})).await.body;
    assert!(at_once.get("previousKeyUntil").is_none());
    assert_eq!(row(&app, &made).await.previous_keys, PreviousKeys::default());
    for bad in [
        json!({"graceSeconds": -1}),
        json!({"graceSeconds": 2_592_001}),
        json!({"graceSeconds": "1h"}),
        json!({"grace": 1}),
    ] {
        assert_eq!(app.post(&psk, bad).await.status, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn proposals_can_be_narrowed_and_weak_ones_are_refused_by_name() {
    let app = TestApp::new().await;
    let narrow = json!({"ikeProposals": ["AES256GCM-PRFSHA384-ECP384", "aes256-sha256-modp2048"], "espProposals": ["aes256gcm16-ecp384", "AES256-SHA256"]});
    let made = app.post("ipsec-tunnels", with(tunnel("a", 1), narrow)).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.text);
    assert_eq!(made.body["ikeProposals"], json!(["aes256gcm16-prfsha384-ecp384", "aes256-sha256-modp2048"]));
    let path = at("ipsec-tunnels", &made.body);
    assert_eq!(
        app.put(&path, app.get(&path).await.body).await.body["espProposals"],
        json!(["aes256gcm16-ecp384", "aes256-sha256"])
    );
    let listed = app.get("ipsec-tunnels?espProposals=aes256gcm16-ecp384").await.body;
    assert_eq!(listed["totalElements"], 1);
    assert_eq!(app.get("ipsec-tunnels?espProposals=aes256gcm16-ecp256").await.body["totalElements"], 0);
    // A change creates a new generation.
    let generation = row(&app, &made.body).await.generation;
    let wider = app.patch(&path, json!({"ikeProposals": null})).await.body;
    assert!(wider.get("ikeProposals").is_none() && wider["status"] == "NEW");
    assert!(row(&app, &made.body).await.generation > generation);
    let weak = json!({
        "ikeProposals": ["3des-md5-modp1024", "aes256-sha1-modp2048", "aes256-sha256-modp1024"],
        "espProposals": ["aes256-ecp384", "null-sha256-ecp256"],
    });
    assert_json_snapshot!("weak", app.shown(&app.post("ipsec-tunnels", with(tunnel("b", 2), weak)).await));
    for bad in [
        json!([]),
        json!("aes256gcm16-prfsha384-ecp384"),
        json!([1]),
        json!(["aes256-sha256-ecp256", "aes256-sha256-ecp256"]),
    ] {
        let answer = app.patch(&path, json!({"ikeProposals": bad})).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{bad}");
    }
}

#[tokio::test]
async fn ipv6_is_refused_with_a_reason_when_a_tunnel_is_created() {
    let app = TestApp::new().await;
    for (changes, message) in [
        (
            json!({"peerPublicIp": "2001:db8::1"}),
            "peerPublicIp must be an IPv4 address: IPv6 tunnels are not supported yet",
        ),
        (
            json!({"peerCidr": "fd00:1::/64"}),
            "peerCidr must be an IPv4 network: IPv6 inside a tunnel is not supported yet",
        ),
    ] {
        let refused = app.post("ipsec-tunnels", with(tunnel("a", 1), changes)).await;
        assert_eq!(
            (refused.status, refused.body["message"].as_str()),
            (StatusCode::BAD_REQUEST, Some(message))
        );
    }
    // An IPv6 address is valid as an identity.
    let made = app.post("ipsec-tunnels", with(tunnel("a", 1), json!({"peerId": "2001:db8::1"}))).await;
    assert_eq!(made.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_put_needs_all_required_properties() {
    let app = TestApp::new().await;
    let made = app.post("ipsec-tunnels", tunnel("a", 1)).await.body;
    let path = at("ipsec-tunnels", &made);
    assert_json_snapshot!("put_without_all", app.shown(&app.put(&path, json!({"name": "a"})).await));
    app.settle(&made, Status::Deployed).await;
    let put = app.put(&path, with(tunnel("b", 1), json!({"peerCidr": "10.9.0.0/16"}))).await;
    assert_json_snapshot!("put", app.shown(&put));
    let moved = app.put(&path, with(tunnel("b", 1), json!({"locationId": "mars"}))).await;
    let message = "locationId can't be changed: delete the tunnel and create another one";
    assert_eq!((moved.status, &moved.body["message"]), (StatusCode::BAD_REQUEST, &json!(message)));
}

#[tokio::test]
async fn a_write_to_a_deleted_resource_is_refused() {
    let app = TestApp::new().await;
    let made = app.post("ipsec-tunnels", tunnel("a", 1)).await.body;
    let path = at("ipsec-tunnels", &made);
    app.delete(&path).await;
    for status in [Status::Deleting, Status::Deleted] {
        app.settle(&made, status).await;
        for refused in [
            app.put(&path, tunnel("a", 1)).await,
            app.patch(&path, json!({"name": "other"})).await,
            app.delete(&path).await,
            app.post(&format!("{path}/psk"), json!({})).await,
            app.get(&format!("{path}/vpn-config")).await,
        ] {
            assert_eq!((refused.status, &refused.body["error"]), (StatusCode::CONFLICT, &json!("conflict")));
        }
    }
    // Its name and its peer's address are free at once after that.
    assert_eq!(app.post("ipsec-tunnels", tunnel("a", 1)).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_key_is_random_or_given_with_20_to_128_characters() {
    let app = TestApp::new().await;
    let mut keys = Vec::new();
    for n in 1..=2 {
        let made =
            app.post("ipsec-tunnels", with(tunnel(&format!("t{n}"), n), json!({"tags": {}}))).await.body;
        keys.push(row(&app, &made).await.spec.pre_shared_key.unwrap().expose().to_owned());
    }
    // 256 bits take 43 characters of base64, and no two keys are equal.
    assert!(keys[0] != keys[1] && keys.iter().all(|key| key.len() >= 43), "of {} characters", keys[0].len());
    for (n, key, status) in [
        (3, "k".repeat(19), StatusCode::BAD_REQUEST),
        (3, "k".repeat(20), StatusCode::ACCEPTED),
        (4, "k".repeat(128), StatusCode::ACCEPTED),
        (5, "k".repeat(129), StatusCode::BAD_REQUEST),
        (5, "ü".repeat(30), StatusCode::BAD_REQUEST),
        (5, "a key\nof several lines".to_owned(), StatusCode::BAD_REQUEST),
    ] {
        let body = with(tunnel(&format!("t{n}"), n), json!({"preSharedKey": key}));
        let answer = app.post("ipsec-tunnels", body).await;
        assert_eq!(answer.status, status, "{} characters: {}", key.len(), answer.text);
        assert!(!answer.text.contains(&key), "the answer contains the key");
    }
}

/// A CHILD SA of a peer that agreed to a part of its network.
fn narrowed(times: SaTimes) -> ChildSa {
    let words = |word: &str| vec![word.to_owned()];
    ChildSa {
        selectors: TrafficSelectors { gateway: words("100.64.0.1/32"), peer: words("172.31.1.0/24") },
        algorithms: "AES_GCM_16-256".to_owned(),
        since: times.established_at,
        rekey_at: times.rekey_at,
        rekeys: 2,
        bytes_in: 7,
        bytes_out: 8,
    }
}

/// The connection shows what the peer does; the status shows how far the gateway is. They are independent.
#[tokio::test]
async fn a_connection_is_shown_beside_the_status() {
    let app = TestApp::new().await;
    let made = app.post("ipsec-tunnels", tunnel("a", 1)).await.body;
    app.settle(&made, Status::Deployed).await;
    let path = at("ipsec-tunnels", &made);
    let id: TunnelId = made["id"].as_str().unwrap().parse().unwrap();
    let mut shown = Vec::new();
    let established_at = "2026-01-01T00:00:00Z".parse().unwrap();
    let times = SaTimes { established_at, rekey_at: Some("2026-01-01T08:00:00Z".parse().unwrap()) };
    for (state, algorithms, last_error) in [
        (ConnectionState::Down, None, Some(("the peer speaks IKEv1", "set its device to IKEv2"))),
        (ConnectionState::Connecting, None, None),
        (ConnectionState::Up, Some(("AES_GCM_16-256/PRF_HMAC_SHA2_384/ECP_384", "AES_GCM_16-256")), None),
    ] {
        let algorithms = algorithms.map(|(ike, esp)| Algorithms { ike: ike.to_owned(), esp: esp.to_owned() });
        let connection = Connection {
            state,
            algorithms: algorithms.clone(),
            peer: (state != ConnectionState::Down).then(|| Peer {
                address: [203, 0, 113, 1].into(),
                port: 4500,
                id: algorithms.is_some().then(|| "site.example".to_owned()),
            }),
            nat: algorithms.is_some().then_some(Nat { gateway: true, peer: false }),
            ike_sa: algorithms.is_some().then_some(times),
            child_sa: algorithms.is_some().then_some(SaTimes { rekey_at: None, ..times }),
            child_sas: algorithms.is_some().then(|| narrowed(times)).into_iter().collect(),
            bytes_in: 7,
            bytes_out: 8,
            warnings: (state == ConnectionState::Up).then(|| silent(established_at)).into_iter().collect(),
            last_error: last_error.map(|(cause, cure): (&str, &str)| ConnectionError {
                reason: ConnectionFault::IkeVersionDiffers,
                cause: cause.to_owned(),
                cure: cure.to_owned(),
                since: Timestamp::now(),
            }),
            ..Connection::down(Timestamp::now())
        };
        app.record_connection(id, &connection).await;
        let read = app.get(&path).await.body;
        assert_eq!(read["status"], "DEPLOYED");
        shown.push(read["connection"].clone());
    }
    // A retry is no change of the connection until it succeeds.
    let history = app.get(&format!("{path}/connection-history")).await;
    assert_json_snapshot!("history", app.shown(&history), {".body.content[].at" => "[time]"});
    let filtered = app.get_hal(&format!("{path}/connection-history?state=UP&sort=at,desc&size=1")).await.body;
    assert_eq!(filtered["page"]["totalElements"], 1);
    assert_eq!(filtered["_embedded"]["connectionChangeList"][0]["peer"]["id"], "site.example");
    let unknown = app.get(&format!("{path}/connection-history?error=x")).await;
    assert_eq!(unknown.status, StatusCode::BAD_REQUEST);
    let nowhere =
        app.get(&format!("{}/connection-history", path.replace(&path[path.len() - 4..], "0000"))).await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
    assert_json_snapshot!("connections", shown, {"[].since" => "[time]", "[].lastError.since" => "[time]"});
}

fn silent(since: Timestamp) -> ConnectionWarning {
    ConnectionWarning::new(ConnectionDoubt::NoTrafficReceived, "no packet has come", since)
}

#[tokio::test]
async fn a_load_balancers_address_can_be_chosen_and_is_of_one_tunnel() {
    let app = TestApp::new().await;
    let choosing = |name: &str, n, ip: &str| with(tunnel(name, n), json!({"loadBalancerIp": ip}));
    let made = app.post("ipsec-tunnels", choosing("a", 1, "100.64.0.2")).await;
    assert_eq!((made.status, &made.body["loadBalancerIp"]), (StatusCode::ACCEPTED, &json!("100.64.0.2")));
    // The address that the server would choose for the second tunnel is taken.
    let second = app.post("ipsec-tunnels", tunnel("b", 2)).await;
    assert_eq!(second.body["loadBalancerIp"], "100.64.0.3");

    let taken = app.post("ipsec-tunnels", choosing("c", 3, "100.64.0.2")).await;
    assert_eq!(taken.status, StatusCode::CONFLICT);
    let owner = made.body["id"].as_str().unwrap();
    assert_eq!(taken.body["message"], format!("loadBalancerIp is taken by IPsec tunnel \"a\" ({owner})"));
    for (ip, rule) in [
        (
            "192.0.2.1",
            "must be an address within a load balancer pool of the gateway, which are 100.64.0.0/16, 10.255.0.0/16",
        ),
        ("100.64.0.0", "must be an address within a load balancer pool"),
        ("fd00::1", "must be an IPv4 address"),
    ] {
        let refused = app.post("ipsec-tunnels", choosing("c", 3, ip)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{ip}");
        let message = refused.body["message"].as_str().unwrap();
        assert!(message.contains("loadBalancerIp") && message.contains(rule), "{message}");
    }
    let own = with(choosing("c", 3, "10.255.0.9"), json!({"peerCidr": "10.0.0.0/8"}));
    let refused = app.post("ipsec-tunnels", own).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.body["message"].as_str().unwrap().ends_with("must be outside of peerCidr, 10.0.0.0/8"));

    let path = at("ipsec-tunnels", &made.body);
    app.settle(&made.body, Status::Deployed).await;
    let read = app.get(&path).await.body;
    let same = app.put(&path, read.clone()).await;
    assert_eq!((&same.body["status"], &same.body["updatedAt"]), (&json!("DEPLOYED"), &read["updatedAt"]));
    let moved = app.patch(&path, json!({"loadBalancerIp": "10.255.1.7"})).await;
    assert_eq!(
        (moved.status, &moved.body["loadBalancerIp"], &moved.body["status"]),
        (StatusCode::ACCEPTED, &json!("10.255.1.7"), &json!("NEW"))
    );
    let refused = app.patch(&path, json!({"loadBalancerIp": "100.64.0.3"})).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    // A change of something else, and a body without the property, leave it.
    let kept = app.patch(&path, json!({"description": "x"})).await;
    assert_eq!(kept.body["loadBalancerIp"], "10.255.1.7");
    assert_eq!(app.put(&path, tunnel("a", 1)).await.body["loadBalancerIp"], "10.255.1.7");
    // A network of the site that covers it moves it.
    let covered = app.patch(&path, json!({"peerCidr": "10.0.0.0/8"})).await;
    assert_eq!(covered.body["loadBalancerIp"], "100.64.0.1");
}
