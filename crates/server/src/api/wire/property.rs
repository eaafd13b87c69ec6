//! The properties of resources. Each resource's file in `wire` has one table, from which its bodies are read, its lists
//! are filtered and sorted, and its schemas are made.
//!
//! Invariant: a table's rows and the resource's representation have the same names; tests hold this.

use super::schema;
use serde_json::{Value, json};
use wicketgate_store::Column;

/// One property. A name with dots is part of a nested object: lists take it, schemas and bodies have the outer object.
#[derive(Debug)]
pub(in crate::api) struct Property {
    pub(in crate::api) name: &'static str,
    pub(in crate::api) kind: PropertyType,
    /// The column that lists filter and sort by; `None` if they cannot.
    pub(in crate::api) column: Option<&'static Column>,
    access: Access,
    /// A representation may lack it.
    optional: bool,
    /// The entry of `schema/values.json` that describes it, if it has one; otherwise its type does.
    described_as: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum PropertyType {
    Text,
    /// An id with this prefix; a plain UUID if it is empty.
    Id(&'static str),
    /// An IPv4 or IPv6 address.
    Ip,
    /// An IPv4 network in CIDR notation, or one address.
    Network,
    Integer,
    Boolean,
    Time,
    Enum(&'static [&'static str]),
    /// Names with a text each; a filter names one of them and its text.
    Tags,
    /// A list of values of a type that is written as text; a filter matches any of them.
    List(&'static Self),
    /// An object whose parts are rows of the table.
    Object,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Ignored in a body, so that a client may send back a representation.
    ReadOnly,
    Writable,
    /// A body of POST or PUT must have it.
    Required,
    /// Never in a representation.
    WriteOnly,
}

impl Property {
    pub(in crate::api) const fn new(name: &'static str, kind: PropertyType) -> Self {
        Self { name, kind, column: None, access: Access::ReadOnly, optional: false, described_as: name }
    }

    pub(in crate::api) const fn column(self, column: &'static Column) -> Self {
        Self { column: Some(column), optional: column.optional, ..self }
    }

    pub(in crate::api) const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    pub(in crate::api) const fn writable(self) -> Self {
        Self { access: Access::Writable, ..self }
    }

    pub(in crate::api) const fn required(self) -> Self {
        Self { access: Access::Required, ..self }
    }

    pub(in crate::api) const fn write_only(self) -> Self {
        Self { access: Access::WriteOnly, ..self }
    }

    /// For a property that is not like those of the same name.
    pub(in crate::api) const fn described_as(self, described_as: &'static str) -> Self {
        Self { described_as, ..self }
    }

    pub(in crate::api) fn is_writable(&self) -> bool {
        self.access != Access::ReadOnly
    }

    pub(in crate::api) fn is_required(&self) -> bool {
        self.access == Access::Required
    }

    pub(in crate::api) fn is_shown(&self) -> bool {
        self.access != Access::WriteOnly
    }

    pub(in crate::api) fn is_always_shown(&self) -> bool {
        self.is_shown() && !self.optional
    }

    pub(in crate::api) fn is_nested(&self) -> bool {
        self.name.contains('.')
    }

    /// The schema of its values.
    pub(in crate::api) fn schema(&self) -> Value {
        schema::value(self.described_as).unwrap_or_else(|| match self.kind {
            PropertyType::Id("") => schema::reference("Uuid"),
            PropertyType::Id(prefix) => json!({
                "type": "string", "pattern": format!("^{prefix}[0-9a-f]{{32}}$"),
                "example": format!("{prefix}0190f3a4c0de7000800000000000abcd"),
            }),
            PropertyType::Integer => json!({"type": "integer"}),
            PropertyType::Boolean => json!({"type": "boolean"}),
            PropertyType::Time => json!({
                "type": "string", "format": "date-time", "description": "", "example": "2038-11-05T09:00:00Z",
            }),
            PropertyType::Enum(names) => json!({"type": "string", "enum": names}),
            PropertyType::Tags => schema::reference("Tags"),
            PropertyType::Text
            | PropertyType::Ip
            | PropertyType::Network
            | PropertyType::List(_)
            | PropertyType::Object => json!({"type": "string"}),
        })
    }
}

/// Links to the resource and to related ones, in HAL.
pub(in crate::api) const LINKS: Property = Property::new("_links", PropertyType::Object).optional();

/// The property of that name which lists can be filtered and sorted by.
pub(in crate::api) fn listed(
    properties: &'static [Property],
    name: &str,
) -> Option<(&'static Property, &'static Column)> {
    properties.iter().find(|p| p.name == name).and_then(|p| Some((p, p.column?)))
}
