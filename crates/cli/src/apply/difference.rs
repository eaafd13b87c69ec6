//! Which properties of a resource differ from what a document says. A property that it leaves out stays as it is.

use serde_json::{Map, Value};

use super::{
    document::{Document, REFERENCES},
    references::References,
};
use crate::schema::about;

/// A property that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// With a dot before a part of an object: `tags.team`.
    pub(crate) property: String,
    pub(crate) old: Value,
    pub(crate) new: Value,
    /// How the file says it, if that is a name.
    pub(crate) said: Value,
}

/// The changes that make a resource what the document says. Of a secret, only the file is shown.
pub(crate) fn changes(document: &Document, present: &Value, references: &References) -> Vec<Change> {
    let mut all = Vec::new();
    for (property, said) in &document.properties {
        let new = meant(document, present, (property, said), references);
        let before = all.len();
        compare(document, property, (&present[property], &new), &mut all);
        if let [change] = &mut all[before..]
            && new != *said
            && !said.is_null()
        {
            change.said = said.clone();
        }
    }
    if present.is_null()
        && let Some((file, _)) = &document.key
    {
        let new: Value = format!("(from {file})").into();
        all.push(Change { property: "preSharedKey".to_owned(), old: Value::Null, said: new.clone(), new });
    }
    if document.kind.name == "env" {
        // Its name is all that can be changed.
        all.retain(|change| change.property == "name");
    }
    all
}

/// The value that a document says in another way. A name of another resource stays one while that does not exist.
fn meant(
    document: &Document,
    present: &Value,
    (property, said): (&str, &Value),
    references: &References,
) -> Value {
    if property == "peerId" && said.is_null() {
        let address = document.properties.get("peerPublicIp");
        return address.unwrap_or(&present["peerPublicIp"]).clone();
    }
    let known = REFERENCES.iter().find(|(name, ..)| *name == property);
    let value = known.and_then(|(name, ..)| references.value(name, said.as_str()?));
    value.unwrap_or(said).clone()
}

fn compare(document: &Document, path: &str, (old, new): (&Value, &Value), all: &mut Vec<Change>) {
    if let (Value::Object(parts), true) = (new, !old.is_null() || path == "tags") {
        for (part, new) in parts {
            compare(document, &format!("{path}.{part}"), (&old[part], new), all);
        }
        return;
    }
    let is_same = match new {
        Value::Null => is_default(path, old),
        _ => normal(document, path, old) == normal(document, path, new),
    };
    if !is_same {
        let (old, new) = (old.clone(), new.clone());
        all.push(Change { property: path.to_owned(), old, said: new.clone(), new });
    }
}

/// Whether the server has this value if a property is removed.
fn is_default(path: &str, old: &Value) -> bool {
    old.is_null()
        || match path {
            "enabled" => *old == true,
            // The server chooses them, and keeps what it has chosen.
            "loadBalancerIp" | "locationId" => true,
            _ => *old == false,
        }
}

/// The server writes some values in another way than it reads them.
fn normal(document: &Document, path: &str, value: &Value) -> Value {
    let schema = document.kind.create.or(document.kind.update).unwrap_or_default();
    let is_time = about(schema, path).is_some_and(|about| about["format"] == "date-time");
    match value {
        Value::String(text) if is_time => match text.parse::<jiff::Timestamp>() {
            Ok(time) => time.to_string().into(),
            Err(_) => value.clone(),
        },
        Value::String(text) => {
            // Prefixes that the API takes off again.
            let prefixes: &[&str] = match path {
                "target" => &["tcp://"],
                "peerId" => &["fqdn:", "email:"],
                _ => &[],
            };
            let bare = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
            bare.into()
        }
        // Proposals have an order; networks, scopes and ids have none.
        Value::Array(all) if !path.ends_with("Proposals") => {
            let mut all = all.clone();
            all.sort_by_key(Value::to_string);
            Value::Array(all)
        }
        _ => value.clone(),
    }
}

/// The merge patch (RFC 7396) of changes.
pub(crate) fn patch(changes: &[Change]) -> Value {
    let mut body = Map::new();
    for change in changes {
        match change.property.split_once('.') {
            Some((outer, inner)) => {
                let object = body.entry(outer).or_insert_with(|| Map::new().into());
                object[inner] = change.new.clone();
            }
            None => {
                body.insert(change.property.clone(), change.new.clone());
            }
        }
    }
    Value::Object(body)
}

/// Whether a resource still has the old values of changes.
pub(crate) fn is_as_planned(changes: &[Change], present: &Value) -> bool {
    let at = |path: &str| path.split('.').fold(present, |value, part| &value[part]);
    // A tag's name may have a dot.
    let tag = |path: &str| path.strip_prefix("tags.").map(|name| &present["tags"][name]);
    changes.iter().all(|change| *tag(&change.property).unwrap_or_else(|| at(&change.property)) == change.old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn change(property: &str, old: Value, new: Value) -> Change {
        Change { property: property.to_owned(), old, said: new.clone(), new }
    }

    #[test]
    fn changes_become_a_merge_patch_and_are_compared_with_what_there_is() {
        let changes = [
            change("ingressPort", json!(1), json!(2)),
            change("tags.a.b", json!("x"), json!("y")),
            change("tags.c", Value::Null, json!("z")),
            change("healthCheck.type", json!("tcp"), json!("none")),
            change("description", json!("old"), Value::Null),
        ];
        assert_eq!(
            patch(&changes),
            json!({"ingressPort": 2, "tags": {"a.b": "y", "c": "z"}, "healthCheck": {"type": "none"}, "description": null})
        );
        let present = json!({"ingressPort": 1, "tags": {"a.b": "x"}, "healthCheck": {"type": "tcp"}, "description": "old"});
        assert!(is_as_planned(&changes, &present));
        for (property, value) in
            [("ingressPort", json!(3)), ("tags", json!({})), ("description", Value::Null)]
        {
            let mut other = present.clone();
            other[property] = value;
            assert!(!is_as_planned(&changes, &other), "{property}");
        }
    }
}
