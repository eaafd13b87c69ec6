use crate::harness::{TestApp, at, error, share, with};
use axum::http::StatusCode;
use insta::assert_json_snapshot;
use proptest::{prelude::*, test_runner::TestCaseError};
use serde_json::{Value, json};
use wicketgate_model::Status;

fn options() -> Value {
    json!({
        "allowedSources": ["172.31.8.0/24", "172.31.0.9"], "maxConnections": 200, "idleTimeoutSeconds": 900,
        "proxyProtocol": "v2",
    })
}

#[tokio::test]
async fn options_are_stored_changed_and_reset() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let body = with(share(&tunnel, &site.z_id, "app-db", 8443), options());
    let made = app.post("ipsec-shares", body).await;
    assert_json_snapshot!("created", app.shown(&made));
    let path = at("ipsec-shares", &made.body);
    assert_eq!(app.get(&path).await.body, made.body);
    let put = app.put(&path, made.body.clone()).await;
    assert_eq!(put.body["allowedSources"], json!(["172.31.8.0/24", "172.31.0.9/32"]));
    let patch = json!({"allowedSources": ["172.31.0.0/16"], "maxConnections": null, "proxyProtocol": null});
    assert_json_snapshot!("patched", app.shown(&app.patch(&path, patch).await));
    let put = app.put(&path, share(&tunnel, &site.z_id, "app-db", 8443)).await;
    assert!(put.body.get("allowedSources").is_none() && put.body.get("idleTimeoutSeconds").is_none());
}

#[tokio::test]
async fn a_description_is_stored_listed_changed_and_removed() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let note = json!({"description": "Billing, \u{e9}t\u{e9}"});
    let made = app.post("ipsec-shares", with(share(&tunnel, &site.z_id, "app-db", 8443), note.clone())).await;
    assert_eq!(made.body["description"], note["description"]);
    app.post("ipsec-shares", share(&tunnel, &site.z_id, "plain", 8444)).await;
    for (query, names) in [
        ("description=Billing%2C%20%C3%A9t%C3%A9", json!(["app-db"])),
        ("description=other", json!([])),
        ("sort=description", json!(["plain", "app-db"])),
        ("sort=description,desc", json!(["app-db", "plain"])),
    ] {
        let list = app.get(&format!("ipsec-shares?{query}")).await.body;
        let found: Vec<_> = list["content"].as_array().unwrap().iter().map(|s| s["name"].clone()).collect();
        assert_eq!(json!(found), names, "{query}");
    }
    for path in [at("ipsec-shares", &made.body), at("ipsec-tunnels", &tunnel)] {
        let changed = app.patch(&path, json!({"description": ""})).await;
        assert_eq!(changed.body["description"], json!(""), "{path}");
        assert_eq!(app.put(&path, changed.body.clone()).await.body["description"], json!(""));
        assert!(app.patch(&path, json!({"description": null})).await.body.get("description").is_none());
        for bad in [json!("x".repeat(501)), json!("a\u{7}")] {
            let refused = app.patch(&path, json!({"description": bad})).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST);
            assert_eq!(
                refused.body["message"],
                json!("description must be at most 500 printable characters")
            );
        }
        assert!(app.get(&path).await.body.get("description").is_none());
    }
}

#[tokio::test]
async fn a_health_check_is_stored_listed_changed_and_removed() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let body = |check: Value| with(share(&tunnel, &site.z_id, "app-db", 8443), json!({"healthCheck": check}));
    for (bad, property, message) in [
        (json!("tcp"), "", "Value for healthCheck must be of type object"),
        (json!({}), "healthCheck.type", "healthCheck.type is required"),
        (json!({"type": "http"}), "", "healthCheck.type must be none or tcp"),
        (json!({"type": 1}), "", "Value for healthCheck.type must be of type string"),
        (
            json!({"type": "tcp", "intervalSeconds": 0}),
            "",
            "healthCheck.intervalSeconds must be between 1 and 86400",
        ),
        (json!({"type": "tcp", "path": "/"}), "", "healthCheck.path is not a known property"),
    ] {
        let answer = app.post("ipsec-shares", body(bad.clone())).await;
        assert_eq!((answer.status, &answer.body["message"]), (StatusCode::BAD_REQUEST, &json!(message)));
        assert!(property.is_empty() || answer.body["message"].as_str().unwrap().contains(property), "{bad}");
    }
    let made = app.post("ipsec-shares", body(json!({"type": "tcp", "intervalSeconds": 5}))).await;
    app.post("ipsec-shares", share(&tunnel, &site.z_id, "plain", 8444)).await;
    for (query, count) in [
        ("healthCheck.type=tcp", 1),
        ("healthCheck.type=none", 0),
        ("healthCheck.intervalSeconds=5", 1),
        ("sort=healthCheck.type", 2),
    ] {
        let list = app.get(&format!("ipsec-shares?{query}")).await.body;
        assert_eq!(list["content"].as_array().unwrap().len(), count, "{query}");
    }
    let path = at("ipsec-shares", &made.body);
    assert_eq!(app.put(&path, made.body.clone()).await.body["healthCheck"], made.body["healthCheck"]);
    let none = app.patch(&path, json!({"healthCheck": {"type": "none", "intervalSeconds": null}})).await;
    assert_eq!(none.body["healthCheck"], json!({"type": "none"}));
    assert!(app.patch(&path, json!({"healthCheck": null})).await.body.get("healthCheck").is_none());
}

#[tokio::test]
async fn a_resource_is_enabled_unless_it_says_otherwise_and_disabled_as_a_status() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let made = app.post("ipsec-shares", share(&tunnel, &site.z_id, "app-db", 8443)).await.body;
    for (kind, it) in [("ipsec-shares", &made), ("ipsec-tunnels", &tunnel)] {
        let path = at(kind, it);
        assert_eq!(it["enabled"], json!(true));
        let refused = app.patch(&path, json!({"enabled": "no"})).await;
        assert_eq!(refused.body["message"], json!("Value for enabled must be of type boolean"));
        let off = app.patch(&path, json!({"enabled": false})).await;
        assert_eq!((&off.body["enabled"], &off.body["status"]), (&json!(false), &json!("NEW")));
        app.settle(&off.body, Status::Disabled).await;
        for (query, count) in
            [("status=DISABLED", 1), ("enabled=false", 1), ("enabled=true", 0), ("status=ERROR", 0)]
        {
            let list = app.get(&format!("{kind}?{query}")).await.body;
            assert_eq!(list["totalElements"], count, "{kind}?{query}");
        }
        let read = app.get(&path).await.body;
        assert_eq!((&read["status"], &read["ready"]), (&json!("DISABLED"), &json!(false)));
        // The same again changes nothing; a body without it enables.
        assert_eq!(app.patch(&path, json!({"enabled": false})).await.body, read);
        let id = it["id"].as_str().unwrap();
        let done = app.get(&format!("executions?resourceId={id}&action=UPDATE")).await.body;
        assert_eq!((&done["totalElements"], &done["content"][0]["status"]), (&json!(1), &json!("SUCCESS")));
        assert_eq!(app.put(&path, with(read, json!({"enabled": null}))).await.body["enabled"], json!(true));
    }
    // The configuration of a disabled tunnel can be handed out.
    let path = at("ipsec-tunnels", &tunnel);
    let off = app.patch(&path, json!({"enabled": false})).await.body;
    app.settle(&off, Status::Disabled).await;
    assert_eq!(app.get(&format!("{path}/vpn-config")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_time_of_expiry_is_stored_listed_changed_and_never_in_the_past() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let body = |end: &str| with(share(&tunnel, &site.z_id, "app-db", 8443), json!({"expiresAt": end}));
    for (bad, message) in [
        ("2020-01-01T00:00:00Z", "expiresAt must be in the future"),
        ("tomorrow", "expiresAt must be a time like 2030-12-31T23:59:59Z"),
    ] {
        let refused = app.post("ipsec-shares", body(bad)).await;
        assert_eq!((refused.status, &refused.body["message"]), (StatusCode::BAD_REQUEST, &json!(message)));
    }
    let made = app.post("ipsec-shares", body("2999-12-31T23:59:59.123456789+01:00")).await.body;
    assert_eq!(made["expiresAt"], json!("2999-12-31T22:59:59.123456Z"));
    app.post("ipsec-shares", share(&tunnel, &site.z_id, "plain", 8444)).await;
    for (query, count) in [("expiresAt=2999-01-01T00:00:00Z..", 1), ("expiresAt=..2998-01-01T00:00:00Z", 0)] {
        assert_eq!(app.get(&format!("ipsec-shares?{query}")).await.body["totalElements"], count, "{query}");
    }
    let path = at("ipsec-shares", &made);
    // One that has passed meanwhile is kept by a write that names it, and by a patch of something else.
    let id = made["id"].as_str().unwrap().parse().unwrap();
    let row = app.store.share(app.frontdoor, id).await.unwrap().unwrap();
    let ended = wicketgate_store::ShareSpec { expires_at: "2020-01-01T00:00:00Z".parse().ok(), ..row.spec };
    app.store.replace_share(app.frontdoor, id, row.generation, &ended, &app.act()).await.unwrap();
    let read = app.get(&path).await.body;
    assert_eq!(app.put(&path, read).await.status, StatusCode::ACCEPTED);
    let patched = app.patch(&path, json!({"description": "over"})).await;
    assert_eq!(
        (patched.status, &patched.body["expiresAt"]),
        (StatusCode::ACCEPTED, &json!("2020-01-01T00:00:00Z"))
    );
    let refused = app.patch(&path, json!({"expiresAt": "2020-01-02T00:00:00Z"})).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(app.patch(&path, json!({"expiresAt": null})).await.body.get("expiresAt").is_none());
}

#[tokio::test]
async fn a_port_that_closes_is_stored_listed_changed_and_needs_probes() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let body = with(share(&tunnel, &site.z_id, "app-db", 8443), json!({"closeWhenUnserved": true}));
    let made = app.post("ipsec-shares", body.clone()).await;
    app.post("ipsec-shares", share(&tunnel, &site.z_id, "plain", 8444)).await;
    for closes in [true, false] {
        let list = app.get(&format!("ipsec-shares?closeWhenUnserved={closes}")).await.body;
        assert_eq!(list["content"][0]["closeWhenUnserved"], json!(closes));
        assert_eq!(list["content"].as_array().unwrap().len(), 1);
    }
    let path = at("ipsec-shares", &made.body);
    assert_eq!(app.put(&path, made.body.clone()).await.body["closeWhenUnserved"], json!(true));
    for check in [json!({"type": "none"}), json!({"type": "none", "intervalSeconds": 5})] {
        let refused = app.patch(&path, json!({"healthCheck": check})).await;
        let rule = "closeWhenUnserved must be false while healthCheck.type is none: without probes, nothing would open the \
                    port again";
        assert_eq!((refused.status, &refused.body["message"]), (StatusCode::BAD_REQUEST, &json!(rule)));
    }
    let changed = app.patch(&path, json!({"healthCheck": {"type": "none"}, "closeWhenUnserved": null})).await;
    assert_eq!(changed.body["closeWhenUnserved"], json!(false));
}

#[tokio::test]
async fn all_faults_of_options_are_reported_at_once() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let bad = json!({
        "allowedSources": ["10.0.0.0/8", "172.31.0.0/16", "172.0.0.0/8"], "maxConnections": 0,
        "idleTimeoutSeconds": 604801, "proxyProtocol": "v1",
    });
    let body = with(share(&tunnel, &site.z_id, "app-db", 8443), bad);
    assert_json_snapshot!("faults", app.shown(&app.post("ipsec-shares", body).await));
    for (change, message) in [
        (
            json!({"allowedSources": []}),
            "allowedSources must be 1 to 64 networks; left out, all of peerCidr is admitted",
        ),
        (
            json!({"allowedSources": "172.31.0.0/16"}),
            "Value for allowedSources must be of type array of strings",
        ),
        (json!({"allowedSources": [7]}), "Value for allowedSources must be of type array of strings"),
        (
            json!({"allowedSources": ["172.31.0.1/16"]}),
            "allowedSources must have no host bits set: 172.31.0.0/16 is the network, not 172.31.0.1/16",
        ),
        (
            json!({"allowedSources": ["fd00::/8"]}),
            "allowedSources must be IPv4 networks in CIDR notation, like 172.31.8.0/24, not fd00::/8",
        ),
        (
            json!({"allowedSources": ["172.31.0.1", "172.31.0.1/32"]}),
            "allowedSources must not name 172.31.0.1/32 twice",
        ),
        (json!({"maxConnections": "9"}), "Value for maxConnections must be of type integer"),
        (json!({"maxConnections": 1.5}), "Value for maxConnections must be of type integer"),
        (json!({"maxConnections": 1e300}), "maxConnections must be between 1 and 1000000"),
        (json!({"idleTimeoutSeconds": -1}), "idleTimeoutSeconds must be between 1 and 604800"),
        (json!({"proxyProtocol": true}), "Value for proxyProtocol must be of type string"),
    ] {
        let body = with(share(&tunnel, &site.z_id, "app-db", 8443), change.clone());
        let answer = app.post("ipsec-shares", body).await;
        assert_eq!(answer.body, error("invalid_request", message), "{change}");
    }
    let many: Vec<_> = (0..65).map(|n| format!("172.31.0.{n}")).collect();
    let body = with(share(&tunnel, &site.z_id, "app-db", 8443), json!({"allowedSources": many}));
    assert_eq!(app.post("ipsec-shares", body).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn allowed_sources_must_be_within_the_tunnels_network() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let body = with(share(&tunnel, &site.z_id, "app-db", 8443), options());
    let made = app.post("ipsec-shares", body).await.body;
    let path = at("ipsec-tunnels", &tunnel);
    let refused = app.patch(&path, json!({"peerCidr": "172.31.8.0/24"})).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let message = format!(
        "peerCidr can't be 172.31.8.0/24: allowedSources of IPsec share \"app-db\" ({}) has 172.31.0.9/32, which is not within it",
        made["id"].as_str().unwrap()
    );
    assert_eq!(refused.body, error("conflict", &message));
    assert_eq!(app.get(&path).await.body["peerCidr"], tunnel["peerCidr"]);
    // The network may grow, and may shrink as far as the shares' allowed sources permit.
    assert_eq!(app.patch(&path, json!({"peerCidr": "172.16.0.0/12"})).await.status, StatusCode::ACCEPTED);
    let share = at("ipsec-shares", &made);
    app.patch(&share, json!({"allowedSources": ["172.31.8.128/25"]})).await;
    assert_eq!(app.patch(&path, json!({"peerCidr": "172.31.8.0/24"})).await.status, StatusCode::ACCEPTED);
    app.delete(&share).await;
    assert_eq!(app.patch(&path, json!({"peerCidr": "10.0.0.0/8"})).await.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn the_number_and_the_lengths_of_tags_are_limited() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let tags = |n: usize, value: &str| -> Value {
        json!({"tags": (0..n).map(|i| (format!("tag-{i}"), value.to_owned())).collect::<std::collections::BTreeMap<_, _>>()})
    };
    let body = |change| with(share(&tunnel, &site.z_id, "app-db", 8443), change);
    for bad in [tags(17, "x"), tags(1, &"x".repeat(256)), tags(1, "\u{0}"), json!({"tags": {"": "x"}})] {
        let answer = app.post("ipsec-shares", body(bad)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.body["message"].as_str().unwrap().starts_with("tags must"), "{}", answer.text);
    }
    let made = app.post("ipsec-shares", body(tags(16, &"ü".repeat(255)))).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.text);
}

/// Arbitrary JSON that contains addresses and networks.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|f| json!(f)),
        "[\\PC\\x00]{0,12}".prop_map(Value::from),
        "172\\.31\\.[0-9]{1,3}\\.[0-9]{1,3}(/[0-9]{1,2})?".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-c]", inner, 0..4).prop_map(|m| json!(m)),
        ]
    })
}

#[test]
fn any_value_of_an_option_is_stored_or_named_in_the_error() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (app, path) = runtime.block_on(async {
        let (app, tunnel, site) = TestApp::with_site().await;
        let made = app.share(&tunnel, &site.z_id, "app-db", 8443).await;
        (app, at("ipsec-shares", &made))
    });
    static NAMES: [&str; 7] =
        ["allowedSources", "maxConnections", "idleTimeoutSeconds", "proxyProtocol", "tags", "name", "target"];
    let config = ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(name in proptest::sample::select(&NAMES[..]), value in any_json())| {
        runtime.block_on(async {
            let answer = app.patch(&path, json!({ name: value })).await;
            match answer.status {
                StatusCode::ACCEPTED => prop_assert_eq!(&app.get(&path).await.body, &answer.body),
                StatusCode::BAD_REQUEST => prop_assert!(answer.body["message"].as_str().unwrap().contains(name)),
                other => prop_assert!(false, "{other}: {}", answer.text),
            }
            Ok::<_, TestCaseError>(())
        })?;
    });
}
