//! Checks responses against the OpenAPI document: every response that a test gets must be described there.

use axum::http::{HeaderMap, Method};
use serde_json::Value;
use std::sync::LazyLock;

static DOCUMENT: LazyLock<Value> = LazyLock::new(wicketgate_server::document);

/// Panics unless the document describes the response. A path or method outside the document must get a 4xx.
pub(crate) fn check(method: &Method, path: &str, status: u16, headers: &HeaderMap, body: &Value) {
    let Some(item) = item(path) else {
        return assert!((400..500).contains(&status), "{path} is not documented");
    };
    let Some(operation) = item.get(method.as_str().to_ascii_lowercase()) else {
        return assert!(
            [405, 200, 304].contains(&status) || status >= 400,
            "{method} {path} is not documented"
        );
    };
    let response = &operation["responses"][status.to_string()];
    assert!(!response.is_null(), "{method} {path}: {status} is not documented");
    let response = resolved(response);
    let media_type = headers.get("content-type").map(|v| v.to_str().unwrap().split(';').next().unwrap());
    match (response.get("content"), media_type) {
        (None, _) | (_, None) => {
            assert!(
                response.get("content").is_none() && body.is_null(),
                "{method} {path}: {status} has no body"
            );
        }
        (Some(content), Some(media_type)) => {
            let schema = &content[media_type]["schema"];
            assert!(!schema.is_null(), "{method} {path}: {status} is not documented as {media_type}");
            if media_type.ends_with("json") {
                validate(schema, body, &format!("{method} {path}: {status} $"));
            }
        }
    }
    if let Some(Value::Object(documented)) = response.get("headers") {
        for (name, header) in documented {
            let is_there = headers.contains_key(name) || header["required"] != true;
            assert!(is_there, "{method} {path}: {status} has no {name}");
        }
    }
}

/// The path item of a path. A literal segment takes precedence over a parameter.
fn item(path: &str) -> Option<&'static Value> {
    let given: Vec<_> = path.split('/').collect();
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let matching = paths.iter().filter_map(|(template, item)| {
        let wanted: Vec<_> = template.split('/').collect();
        let fits = |(w, g): (&&str, &&str)| w.starts_with('{') && !g.is_empty() || w == g;
        let is = wanted.len() == given.len() && wanted.iter().zip(&given).all(fits);
        is.then_some((template.matches('{').count(), item))
    });
    matching.min_by_key(|(parameters, _)| *parameters).map(|(_, item)| item)
}

fn resolved(value: &'static Value) -> &'static Value {
    match value.get("$ref") {
        Some(Value::String(reference)) => DOCUMENT.pointer(&reference[1..]).unwrap(),
        _ => value,
    }
}

/// Validates a value. Supports the part of JSON Schema that the document uses for responses.
fn validate(schema: &'static Value, value: &Value, at: &str) {
    let schema = resolved(schema);
    let right = match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        None => true,
        Some(other) => panic!("{at}: the checker does not support the type {other}"),
    };
    assert!(right, "{at} is {value}, not of {}", schema["type"]);
    if let Some(Value::Array(names)) = schema.get("enum") {
        assert!(names.contains(value), "{at}: {value} is not one of {names:?}");
    }
    if schema["format"] == "date-time" {
        value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    }
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        assert!(value.get(name.as_str().unwrap()).is_some(), "{at}.{name} is missing");
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        assert!(!value.is_null(), "{at} is null");
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(property), _) => validate(property, value, &at),
            (None, Some(Value::Bool(false))) => panic!("{at} is not documented"),
            (None, Some(others)) => validate(others, value, &at),
            (None, None) => {}
        }
    }
    if let Some(items) = schema.get("items") {
        for (i, item) in value.as_array().into_iter().flatten().enumerate() {
            validate(items, item, &format!("{at}[{i}]"));
        }
    }
}
