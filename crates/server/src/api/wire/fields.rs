//! The properties of a request's body. Reading goes on after a fault, so that all are reported at once.

use crate::error::{ApiError, Fault};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, str::FromStr};
use wicketgate_model::Invalid;

/// More of a list is not looked at: it is too long already.
const MOST_LISTED: usize = 256;
/// Faults of one list that are named.
const MOST_ITEM_FAULTS: usize = 16;
/// Unknown properties of one body that are named.
const MOST_UNKNOWN: usize = 32;
const MOST_TAGS: usize = 16;
/// Names and values of tags: room for a label and a sentence.
const LONGEST_TAG: usize = 63;
const LONGEST_TAG_VALUE: usize = 255;

/// What a resource's bodies may hold.
#[derive(Debug)]
pub(in crate::api) struct Properties {
    pub(in crate::api) writable: &'static [&'static str],
    /// Ignored, so that a client may send back what it read.
    pub(in crate::api) read_only: &'static [&'static str],
}

#[derive(Debug)]
pub(super) struct Fields {
    object: Map<String, Value>,
    faults: Vec<Fault>,
}

impl Fields {
    pub(super) fn new(object: Map<String, Value>, properties: &Properties) -> Self {
        let unknown = |name: &&String| {
            !properties.writable.contains(&name.as_str()) && !properties.read_only.contains(&name.as_str())
        };
        let faults = object
            .keys()
            .filter(unknown)
            .take(MOST_UNKNOWN)
            .map(|name| Fault {
                property: printable(name),
                message: format!("{} is not a known property", printable(name)),
            })
            .collect();
        Self { object, faults }
    }

    /// Notes that `property` breaks a rule; the rule is worded to follow its name.
    pub(super) fn fault(&mut self, property: &str, rule: impl std::fmt::Display) {
        self.faults.push(Fault { property: property.to_owned(), message: format!("{property} {rule}") });
    }

    fn wrong_type(&mut self, property: &str, kind: &str) {
        let message = format!("Value for {property} must be of type {kind}");
        self.faults.push(Fault { property: property.to_owned(), message });
    }

    /// A value that is there and not `null`.
    fn given(&mut self, property: &str) -> Option<Value> {
        self.object.remove(property).filter(|v| !v.is_null())
    }

    fn needed(&mut self, property: &str) -> Option<Value> {
        let value = self.given(property);
        if value.is_none() {
            self.fault(property, "is required");
        }
        value
    }

    fn parse<T: FromStr<Err = Invalid>>(&mut self, property: &str, value: Value) -> Option<T> {
        let Value::String(text) = value else {
            self.wrong_type(property, "string");
            return None;
        };
        text.parse().map_err(|rule| self.fault(property, rule)).ok()
    }

    pub(super) fn required<T: FromStr<Err = Invalid>>(&mut self, property: &str) -> Option<T> {
        let value = self.needed(property)?;
        self.parse(property, value)
    }

    pub(super) fn optional<T: FromStr<Err = Invalid>>(&mut self, property: &str) -> Option<T> {
        let value = self.given(property)?;
        self.parse(property, value)
    }

    pub(super) fn required_integer<T: TryFrom<i64, Error = Invalid>>(&mut self, property: &str) -> Option<T> {
        let value = self.needed(property)?;
        self.integer(property, &value)
    }

    pub(super) fn optional_integer<T: TryFrom<i64, Error = Invalid>>(&mut self, property: &str) -> Option<T> {
        let value = self.given(property)?;
        self.integer(property, &value)
    }

    fn integer<T: TryFrom<i64, Error = Invalid>>(&mut self, property: &str, value: &Value) -> Option<T> {
        match integer(value) {
            Some(n) => T::try_from(n).map_err(|rule| self.fault(property, rule)).ok(),
            None => {
                self.wrong_type(property, "integer");
                None
            }
        }
    }

    /// A list of texts that keep a rule each, and one together.
    pub(super) fn optional_list<T, L>(&mut self, property: &str) -> Option<L>
    where
        T: FromStr<Err = Invalid>,
        L: TryFrom<Vec<T>, Error = Invalid>,
    {
        let Value::Array(values) = self.given(property)? else {
            self.wrong_type(property, "array of strings");
            return None;
        };
        let count = values.len();
        let mut list = Vec::new();
        let mut faults = 0;
        for value in values.into_iter().take(MOST_LISTED) {
            let Value::String(text) = value else {
                self.wrong_type(property, "array of strings");
                return None;
            };
            match text.parse() {
                Ok(item) => list.push(item),
                Err(_) if faults == MOST_ITEM_FAULTS => {}
                Err(rule) => {
                    faults += 1;
                    self.fault(property, format!("{rule}, not {}", printable(&text)));
                }
            }
        }
        if list.len() < count.min(MOST_LISTED) {
            return None;
        }
        L::try_from(list).map_err(|rule| self.fault(property, rule)).ok()
    }

    pub(super) fn optional_boolean(&mut self, property: &str) -> Option<bool> {
        match self.given(property)? {
            Value::Bool(b) => Some(b),
            _ => {
                self.wrong_type(property, "boolean");
                None
            }
        }
    }

    /// Names with a text each; none if left out.
    pub(super) fn tags(&mut self) -> BTreeMap<String, String> {
        let Some(value) = self.given("tags") else { return BTreeMap::new() };
        let Value::Object(object) = value else {
            self.wrong_type("tags", "object");
            return BTreeMap::new();
        };
        if object.len() > MOST_TAGS {
            self.fault("tags", format!("must have {MOST_TAGS} names at most"));
        }
        let mut tags = BTreeMap::new();
        for (name, value) in object.into_iter().take(MOST_TAGS) {
            let Value::String(value) = value else {
                self.wrong_type("tags", "object of strings");
                continue;
            };
            let is_name = (1..=LONGEST_TAG).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            if !is_name {
                self.fault(
                    "tags",
                    format!("must have names of 1 to {LONGEST_TAG} letters, digits and - _ ."),
                );
            } else if value.chars().count() > LONGEST_TAG_VALUE || value.chars().any(char::is_control) {
                self.fault(
                    "tags",
                    format!("must have values of at most {LONGEST_TAG_VALUE} printable characters"),
                );
            } else {
                tags.insert(name, value);
            }
        }
        tags
    }

    /// What was made of the fields, unless one has a fault.
    pub(super) fn finish<T>(self, made: Option<T>) -> Result<T, ApiError> {
        match made {
            Some(made) if self.faults.is_empty() => Ok(made),
            _ => Err(ApiError::faults(self.faults)),
        }
    }
}

/// A whole number, also when it is written as `8443.0` or beyond what fits: then it breaks the rule, not the type.
fn integer(value: &Value) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "saturates, which is what is wanted")]
    let whole = |f: f64| (f.fract() == 0.0).then_some(f as i64);
    value.as_i64().or_else(|| value.as_f64().and_then(whole))
}

/// A caller's own text, short enough to be shown to it.
pub(in crate::api) fn printable(text: &str) -> String {
    const SHOWN: usize = 64;
    text.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

/// RFC 7396: `null` removes, an object is merged, all else replaces.
pub(super) fn merge(into: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                into.remove(&name);
            }
            Value::Object(patch) => {
                let mut merged = match into.remove(&name) {
                    Some(Value::Object(old)) => old,
                    _ => Map::new(),
                };
                merge(&mut merged, patch);
                into.insert(name, Value::Object(merged));
            }
            value => {
                into.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_merges_as_the_rfc_has_it() {
        for (into, patch, merged) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"a": "b"}), json!({"a": {"b": null}}), json!({"a": {}})),
        ] {
            let (Value::Object(mut into), Value::Object(patch)) = (into, patch) else { panic!() };
            merge(&mut into, patch);
            assert_eq!(Value::Object(into), merged);
        }
    }

    #[test]
    fn a_whole_number_is_an_integer_however_it_is_written() {
        assert_eq!(integer(&json!(8443.0)), Some(8443));
        assert_eq!(integer(&json!(1e30)), Some(i64::MAX));
        assert_eq!(integer(&json!(1.5)), None);
        assert_eq!(integer(&json!("1")), None);
    }
}
