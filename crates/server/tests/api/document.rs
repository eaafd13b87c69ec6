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
