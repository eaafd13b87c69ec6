use super::*;
use std::path::Path;

/// Where the copy is that clients are made from.
fn copy() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json")
}

/// `UPDATE_OPENAPI=1` writes the copy anew.
#[test]
fn the_copy_in_docs_is_the_document() {
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(copy(), DOCUMENT.as_str()).unwrap();
    }
    let kept = std::fs::read_to_string(copy()).unwrap_or_default();
    assert!(kept == *DOCUMENT, "docs/openapi.json is old: `make openapi` writes it anew");
}

#[test]
fn it_names_every_route_and_no_other() {
    let source = include_str!("../../api.rs");
    let mut routed: Vec<String> = source
        .split(".route(")
        .skip(1)
        .filter_map(|rest| rest.split('"').nth(1).map(str::to_owned))
        .collect();
    routed.sort();
    let mut told: Vec<String> = document()["paths"].as_object().unwrap().keys().cloned().collect();
    told.sort();
    assert_eq!(told, routed);
}

#[test]
fn every_reference_is_to_something() {
    fn walk(value: &Value, document: &Value) {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(reference)) = object.get("$ref") {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{reference}");
                }
                object.values().for_each(|v| walk(v, document));
            }
            Value::Array(values) => values.iter().for_each(|v| walk(v, document)),
            _ => {}
        }
    }
    let document = document();
    walk(&document, &document);
    let mut ids: Vec<_> = OPERATIONS.iter().map(|o| o.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), OPERATIONS.len());
}

#[test]
fn what_a_list_can_be_asked_for_is_what_its_resources_have() {
    let document = document();
    for operation in OPERATIONS {
        let Parameters::List(listing) = operation.parameters else { continue };
        let page = operation.answers[0].1;
        let schema = &document["components"]["schemas"][page.strip_suffix("Page").unwrap()]["properties"];
        for property in listing.properties {
            let name = property.name.split('.').next().unwrap();
            assert!(schema.get(name).is_some(), "{page}: {}", property.name);
        }
        for name in schema.as_object().unwrap().keys() {
            // Agents have a list of their own, what they say of their shares is kept by nobody, and when an older key
            // ends is shown only until it does.
            let is_listed = ["_links", "agents", "shares", "previousKeyUntil"].contains(&name.as_str())
                || listing.properties.iter().any(|p| p.name.split('.').next() == Some(name));
            assert!(is_listed, "{page}: {name}");
        }
    }
}
