use crate::harness::{TestApp, at};
use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use serde_json::{Map, Value, json};
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
async fn the_root_leads_to_everything_that_is_there() {
    let app = TestApp::new().await;
    for accept in ["application/json", "application/hal+json", "image/png"] {
        let request = Request::get("/").header("accept", accept).body(Body::empty()).unwrap();
        let root = app.send(request).await;
        assert_eq!(
            (root.status, &root.headers["content-type"]),
            (StatusCode::OK, &"application/json".parse().unwrap())
        );
        let paths = document()["paths"].clone();
        for (relation, link) in root.body["_links"].as_object().unwrap() {
            let path = link["href"].as_str().unwrap();
            assert!(paths.get(path).is_some(), "{relation}: {path}");
        }
    }
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

/// A value that the schema of a property allows.
fn sample(name: &str, schema: &Value) -> Value {
    if let Some(value) = schema.get("example").or_else(|| schema.get("minimum")) {
        return value.clone();
    }
    match (schema.pointer("/enum/0"), schema.get("items"), schema["type"].get(0)) {
        (Some(first), ..) => first.clone(),
        (_, Some(items), _) => json!([sample(name, items)]),
        (.., Some(Value::String(kind))) if kind == "boolean" => json!(true),
        _ => panic!("{name} needs an example in values.json"),
    }
}

#[tokio::test]
async fn every_property_that_can_be_written_is_returned() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let document = document();
    let chosen = json!({"locationId": "local", "ipsecTunnelId": tunnel["id"], "envZId": site.z_id,
        "peerPublicIp": "203.0.113.77", "preSharedKey": "a key of more than twenty characters", "tags": {"team": "payments"}});
    for (list, schema) in [("ipsec-tunnels", "IpsecTunnelRequest"), ("ipsec-shares", "IpsecShareRequest")] {
        let properties = document["components"]["schemas"][schema]["properties"].as_object().unwrap();
        let value = |(name, schema): (&String, &Value)| {
            (name.clone(), chosen.get(name).cloned().unwrap_or_else(|| sample(name, schema)))
        };
        let writable = properties.iter().filter(|(_, schema)| schema["readOnly"] != true);
        let written: Map<_, _> = writable.map(value).collect();
        let made = app.post(list, Value::Object(written.clone())).await;
        assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.text);
        let read = app.get(&at(list, &made.body)).await.body;
        for (name, value) in written.iter().filter(|(name, _)| properties[*name]["writeOnly"] != true) {
            assert_eq!(read.get(name), Some(value), "{list}: {name}");
        }
    }
}

/// Values at the limits of a schema, and beyond them, and whether they are allowed.
fn edges(schema: &Value) -> Vec<(Value, bool)> {
    let number = |limit: &str, beyond: i64| {
        let limit = schema[limit].as_i64();
        limit.map(|limit| [(json!(limit), true), (json!(limit + beyond), false)])
    };
    let text = schema["maxLength"].as_u64().map(|most| {
        let text = |length: u64| json!("a".repeat(usize::try_from(length).unwrap()));
        [(text(most), true), (text(most + 1), false)]
    });
    [number("minimum", -1), number("maximum", 1), text].into_iter().flatten().flatten().collect()
}

#[tokio::test]
async fn limits_of_numbers_and_texts_are_those_of_the_code() {
    let (app, tunnel, site) = TestApp::with_site().await;
    let document = document();
    let mut requests = 10_u8;
    for (list, schema) in [("ipsec-tunnels", "IpsecTunnelRequest"), ("ipsec-shares", "IpsecShareRequest")] {
        let properties = document["components"]["schemas"][schema]["properties"].as_object().unwrap();
        for (name, value, is_allowed) in properties
            .iter()
            .filter(|(_, schema)| schema["readOnly"] != true)
            .flat_map(|(name, schema)| edges(schema).into_iter().map(move |(v, is)| (name, v, is)))
        {
            requests += 1;
            let mut body = match list {
                "ipsec-tunnels" => json!({"locationId": "local", "peerCidr": "10.66.0.0/16",
                    "peerPublicIp": format!("203.0.113.{requests}")}),
                _ => json!({"ipsecTunnelId": tunnel["id"], "envZId": site.z_id, "target": "127.0.0.1:80",
                    "ingressPort": 20_000 + u16::from(requests)}),
            };
            body["name"] = json!(format!("limit-{requests}"));
            body[name] = value;
            let answer = app.post(list, body).await;
            if is_allowed {
                assert_eq!(answer.status, StatusCode::ACCEPTED, "{list}: {name}: {}", answer.text);
            } else {
                assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{list}: {name}");
                let message = answer.body["message"].as_str().unwrap();
                assert!(message.starts_with(name), "{list}: {name}: {message}");
            }
        }
    }
    assert!(requests > 16, "the schemas have limits");
}
