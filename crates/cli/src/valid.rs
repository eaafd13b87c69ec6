//! Whether a value is as the API's document says: so a wrong file is refused before anything is written.

use fancy_regex::Regex;
use serde_json::Value;

use crate::schema::resolved;

/// What is wrong with a value, as in "must be a number". `None`: nothing that the document tells.
pub(crate) fn fault(about: &Value, value: &Value) -> Option<String> {
    let about = resolved(about);
    let types: Vec<_> = match &about["type"] {
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    if value.is_null() {
        // A patch removes a property with null.
        return None;
    }
    let is = |name: &&str| match *name {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    if !types.is_empty() && !types.iter().any(is) {
        let wanted: Vec<_> = types.into_iter().filter(|name| *name != "null").collect();
        return Some(format!("must be of type {}", wanted.join(" or ")));
    }
    let choices = about["enum"].as_array().filter(|all| !all.contains(value));
    if let Some(all) = choices {
        let all: Vec<_> = all.iter().filter_map(Value::as_str).collect();
        return Some(format!("must be one of {}", all.join(", ")));
    }
    match value {
        Value::String(text) => of_text(about, text),
        Value::Number(number) => range(about, "minimum", "maximum", number.as_i64().unwrap_or(i64::MAX)),
        Value::Array(all) => range(about, "minItems", "maxItems", length(all.len()))
            .map(|fault| format!("{fault} entries"))
            .or_else(|| all.iter().find_map(|one| fault(&about["items"], one))),
        Value::Object(all) => all.iter().find_map(|(name, one)| {
            let names = about["additionalProperties"].as_object().map(|_| &about["additionalProperties"]);
            let Some(inner) = about["properties"].get(name).or(names) else {
                return Some(format!("has no property {name}"));
            };
            let name_fault = of_text(&about["propertyNames"], name);
            name_fault.or_else(|| fault(inner, one)).map(|fault| format!("{name} {fault}"))
        }),
        Value::Null | Value::Bool(_) => None,
    }
}

fn of_text(about: &Value, text: &str) -> Option<String> {
    if let Some(fault) = range(about, "minLength", "maxLength", length(text.chars().count())) {
        return Some(format!("{fault} characters long"));
    }
    let pattern = about["pattern"].as_str()?;
    // A match that is given up for its cost is left to the server.
    let fits = Regex::new(pattern).ok()?.is_match(text).unwrap_or(true);
    if fits {
        return None;
    }
    let example = about["example"].as_str().map(|example| format!(", such as {example}")).unwrap_or_default();
    Some(format!("must be a valid value{example}"))
}

fn range(about: &Value, least: &str, most: &str, value: i64) -> Option<String> {
    let (least, most) = (about[least].as_i64(), about[most].as_i64());
    let is_within = least.is_none_or(|least| value >= least) && most.is_none_or(|most| value <= most);
    if is_within {
        return None;
    }
    Some(match (least, most) {
        (Some(least), Some(most)) => format!("must be {least} to {most}"),
        (Some(least), None) => format!("must be {least} or more"),
        (None, most) => format!("must be {} or less", most.unwrap_or_default()),
    })
}

fn length(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kind::KINDS, schema::about};
    use serde_json::json;

    #[test]
    fn values_are_as_the_document_says() {
        let of = |property: &str, value: Value| {
            let schema =
                if property.starts_with("peer") { "IpsecTunnelRequest" } else { "IpsecShareRequest" };
            fault(about(schema, property).unwrap(), &value)
        };
        for (property, value) in [
            ("ingressPort", json!(9000)),
            ("tags", json!({"team": "payments"})),
            ("healthCheck", json!({"type": "tcp", "intervalSeconds": 30})),
            ("target", json!("db.example:5432")),
            ("description", Value::Null),
            ("peerId", json!("dn:C=DE, O=Example, CN=router")),
            ("peerCidr", json!("10.0.0.0/16")),
        ] {
            assert_eq!(of(property, value.clone()), None, "{property}: {value}");
        }
        for (property, value, why) in [
            ("ingressPort", json!("9000"), "must be of type integer"),
            ("ingressPort", json!(65536), "must be 1 to 65535"),
            ("tags", json!({"a b": "c"}), "a b must be a valid value"),
            ("healthCheck", json!({"type": "udp"}), "type must be one of none, tcp"),
            ("healthCheck", json!({"kind": "tcp"}), "has no property kind"),
            ("peerId", json!("0.0.0.0"), "must be a valid value, such as 203.0.113.1"),
            ("peerCidr", json!("10.0.0.0/99"), "must be a valid value, such as 172.31.0.0/16"),
            ("allowedSources", json!([]), "must be 1 to 64 entries"),
        ] {
            assert_eq!(of(property, value.clone()).as_deref(), Some(why), "{property}: {value}");
        }
    }

    #[test]
    fn every_pattern_of_the_document_is_understood() {
        fn check(value: &Value) {
            if let Some(pattern) = value["pattern"].as_str() {
                Regex::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            }
            match value {
                Value::Object(all) => all.values().for_each(check),
                Value::Array(all) => all.iter().for_each(check),
                _ => {}
            }
        }
        for schema in KINDS.iter().flat_map(|kind| [kind.create, kind.update]).flatten() {
            check(crate::schema::named(schema));
        }
    }
}
