//! The properties of a request's body. Parsing continues after a fault, so that all faults are reported at once.

use super::property::Property;
use crate::{
    error::{ApiError, PropertyFault},
    state::to_the_microsecond,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, str::FromStr};
use wicketgate_model::Invalid;

/// Items of a list that are parsed; a longer list is refused for its length.
const MOST_LISTED: usize = 256;
/// Faults of one list that are reported.
const MOST_ITEM_FAULTS: usize = 16;
/// Unknown properties of one body that are reported.
const MOST_UNKNOWN: usize = 32;
const MOST_TAGS: usize = 16;
/// Names and values of tags: room for a label and a sentence.
const LONGEST_TAG: usize = 63;
const LONGEST_TAG_VALUE: usize = 255;

#[derive(Debug)]
pub(super) struct Fields {
    properties: &'static [Property],
    object: Map<String, Value>,
    faults: Vec<PropertyFault>,
}

impl Fields {
    pub(super) fn new(object: Map<String, Value>, properties: &'static [Property]) -> Self {
        let is_known = |name: &str| properties.iter().any(|p| p.name == name && !p.is_nested());
        let faults = object
            .keys()
            .filter(|name| !is_known(name))
            .take(MOST_UNKNOWN)
            .map(|name| PropertyFault {
                property: printable(name),
                message: format!("{} is not a known property", printable(name)),
            })
            .collect();
        Self { properties, object, faults }
    }

    /// Records that `property` breaks a rule; the rule is worded to follow the property's name.
    pub(super) fn fault(&mut self, property: &str, rule: impl std::fmt::Display) {
        self.faults
            .push(PropertyFault { property: property.to_owned(), message: format!("{property} {rule}") });
    }

    fn wrong_type(&mut self, property: &str, kind: &str) {
        let message = format!("Value for {property} must be of type {kind}");
        self.faults.push(PropertyFault { property: property.to_owned(), message });
    }

    /// The value, unless it is absent or `null`; then it is a fault if the property is required.
    fn given(&mut self, property: &str) -> Option<Value> {
        let value = self.object.remove(property).filter(|v| !v.is_null());
        if value.is_none() && self.properties.iter().any(|p| p.name == property && p.is_required()) {
            self.fault(property, "is required");
        }
        value
    }

    /// The value as `take` converts it; it is a fault if it is of another type.
    fn typed<T>(&mut self, property: &str, kind: &str, take: impl FnOnce(Value) -> Option<T>) -> Option<T> {
        let taken = take(self.given(property)?);
        if taken.is_none() {
            self.wrong_type(property, kind);
        }
        taken
    }

    pub(super) fn text<T: FromStr<Err = Invalid>>(&mut self, property: &str) -> Option<T> {
        self.parsed(property, str::parse)
    }

    /// A text with a rule that no type has.
    pub(super) fn parsed<T>(
        &mut self,
        property: &str,
        parse: impl FnOnce(&str) -> Result<T, Invalid>,
    ) -> Option<T> {
        let text = self.typed(property, "string", string)?;
        parse(&text).map_err(|rule| self.fault(property, rule)).ok()
    }

    pub(super) fn integer<T: TryFrom<i64, Error = Invalid>>(&mut self, property: &str) -> Option<T> {
        let n = self.typed(property, "integer", |value| integer(&value))?;
        T::try_from(n).map_err(|rule| self.fault(property, rule)).ok()
    }

    pub(super) fn is_object(&self, property: &str) -> bool {
        self.object.get(property).is_some_and(Value::is_object)
    }

    /// As [`Self::integer`], also as this part of an object, which a representation has.
    pub(super) fn integer_or_part<T: TryFrom<i64, Error = Invalid>>(
        &mut self,
        property: &str,
        part: &str,
    ) -> Option<T> {
        let n = self.typed(property, "integer", |value| integer(value.get(part).unwrap_or(&value)))?;
        T::try_from(n).map_err(|rule| self.fault(property, rule)).ok()
    }

    /// A list of texts that have one rule each, and that of `make` together.
    pub(super) fn list<T: FromStr<Err = Invalid>, L>(
        &mut self,
        property: &str,
        make: impl FnOnce(Vec<T>) -> Result<L, Invalid>,
    ) -> Option<L> {
        let values = self.typed(property, "array of strings", array)?;
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
        make(list).map_err(|rule| self.fault(property, rule)).ok()
    }

    /// An object with parts of its own; its faults name them with the property's name in front.
    pub(super) fn nested<T>(
        &mut self,
        property: &str,
        parts: &'static [Property],
        parse: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let object = self.typed(property, "object", object)?;
        let mut fields = Self::new(object, parts);
        let parsed = parse(&mut fields);
        self.faults.extend(fields.faults.into_iter().map(|PropertyFault { property: part, message }| {
            let message = message.replacen(&part, &format!("{property}.{part}"), 1);
            PropertyFault { property: format!("{property}.{part}"), message }
        }));
        parsed
    }

    pub(super) fn boolean(&mut self, property: &str) -> Option<bool> {
        self.typed(property, "boolean", |value| value.as_bool())
    }

    /// A time, as the database keeps it.
    pub(super) fn time(&mut self, property: &str) -> Option<Timestamp> {
        let rule = || Invalid("must be a time like 2030-12-31T23:59:59Z".to_owned());
        self.parsed(property, |text| text.parse().map_err(|_| rule())).map(to_the_microsecond)
    }

    /// `tags`: names with a text each; none if left out.
    pub(super) fn tags(&mut self) -> BTreeMap<String, String> {
        let Some(object) = self.typed("tags", "object", object) else { return BTreeMap::new() };
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
                let rule = format!("must have names of 1 to {LONGEST_TAG} letters, digits and - _ .");
                self.fault("tags", rule);
            } else if value.chars().count() > LONGEST_TAG_VALUE || value.chars().any(char::is_control) {
                let rule = format!("must have values of at most {LONGEST_TAG_VALUE} printable characters");
                self.fault("tags", rule);
            } else {
                tags.insert(name, value);
            }
        }
        tags
    }

    /// What `make` makes of the parsed values, or all faults. It returns `None` only where there is a fault.
    pub(super) fn finish<T>(self, make: impl FnOnce() -> Option<T>) -> Result<T, ApiError> {
        match make() {
            Some(made) if self.faults.is_empty() => Ok(made),
            _ => Err(ApiError::faults(self.faults)),
        }
    }
}

/// A whole number, even if it is written as `8443.0` or does not fit: then it breaks the rule, not the type.
fn integer(value: &Value) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
    let whole = |f: f64| (f.fract() == 0.0).then_some(f as i64);
    value.as_i64().or_else(|| value.as_f64().and_then(whole))
}

/// A client's text without control characters, shortened for an error message.
pub(in crate::api) fn printable(text: &str) -> String {
    const SHOWN: usize = 64;
    text.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

/// The body of PUT that a merge patch of `it` stands for: its writable properties, patched.
pub(super) fn patched(
    it: &impl Serialize,
    properties: &[Property],
    patch: Map<String, Value>,
) -> Map<String, Value> {
    let mut whole = serde_json::to_value(it).ok().and_then(object).unwrap_or_default();
    whole.retain(|name, _| properties.iter().any(|p| p.name == name && p.is_writable()));
    merge(&mut whole, patch);
    whole
}

/// RFC 7396: `null` removes, an object is merged, all else replaces.
fn merge(into: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => drop(into.remove(&name)),
            Value::Object(patch) => {
                let mut old = into.remove(&name).and_then(object).unwrap_or_default();
                merge(&mut old, patch);
                into.insert(name, Value::Object(old));
            }
            value => drop(into.insert(name, value)),
        }
    }
}

fn object(value: Value) -> Option<Map<String, Value>> {
    if let Value::Object(object) = value { Some(object) } else { None }
}

fn array(value: Value) -> Option<Vec<Value>> {
    if let Value::Array(array) = value { Some(array) } else { None }
}

fn string(value: Value) -> Option<String> {
    if let Value::String(text) = value { Some(text) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_merges_as_the_rfc_specifies() {
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
    fn a_whole_number_is_an_integer_in_any_notation() {
        assert_eq!(integer(&json!(8443.0)), Some(8443));
        assert_eq!(integer(&json!(1e30)), Some(i64::MAX));
        assert_eq!(integer(&json!(1.5)), None);
        assert_eq!(integer(&json!("1")), None);
    }
}
