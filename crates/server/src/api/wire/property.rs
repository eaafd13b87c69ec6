//! The properties of resources. Each resource's file in `wire` has one table, from which its bodies are read, its lists
//! are filtered and sorted, and its schemas are made.
//!
//! Invariant: a table's rows and the resource's representation have the same names; tests hold this.

use super::schema;
use serde_json::{Value, json};
use wicketgate_model::{ConnectionFault, ConnectionState, Reason, Status};
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
    schema: Option<fn() -> Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum PropertyType {
    Text,
    /// An id with this prefix; a plain UUID if it is empty.
    Id(&'static str),
    Integer,
    Boolean,
    Time,
    Enum(&'static [&'static str]),
    /// Names with a text each; a filter names one of them and its text.
    Tags,
    /// A list of texts; a filter matches any of them.
    List,
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
        Self { name, kind, column: None, access: Access::ReadOnly, optional: false, schema: None }
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

    pub(in crate::api) const fn schema(self, schema: fn() -> Value) -> Self {
        Self { schema: Some(schema), ..self }
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
    pub(in crate::api) fn described(&self) -> Value {
        match (self.schema, self.kind) {
            (Some(schema), _) => schema(),
            (None, PropertyType::Id("")) => schema::reference("Uuid"),
            (None, PropertyType::Id(prefix)) => schema::id(prefix),
            (None, PropertyType::Integer) => json!({"type": "integer"}),
            (None, PropertyType::Boolean) => json!({"type": "boolean"}),
            (None, PropertyType::Time) => schema::time(""),
            (None, PropertyType::Enum(names)) => schema::one_of(names),
            (None, PropertyType::Tags) => schema::reference("Tags"),
            (None, PropertyType::Text | PropertyType::List | PropertyType::Object) => {
                json!({"type": "string"})
            }
        }
    }
}

/// Links to the resource and to related ones, in HAL.
pub(in crate::api) const LINKS: Property =
    Property::new("_links", PropertyType::Object).optional().schema(|| schema::reference("Links"));

/// The property of that name which lists can be filtered and sorted by.
pub(in crate::api) fn listed(
    properties: &'static [Property],
    name: &str,
) -> Option<(&'static Property, &'static Column)> {
    properties.iter().find(|p| p.name == name).and_then(|p| Some((p, p.column?)))
}

/// The texts of closed lists of the model.
pub(in crate::api) const STATUSES: &[&str] = Status::NAMES;
pub(in crate::api) const REASONS: &[&str] = Reason::NAMES;
pub(in crate::api) const CONNECTION_STATES: &[&str] = ConnectionState::NAMES;
pub(in crate::api) const CONNECTION_FAULTS: &[&str] = ConnectionFault::NAMES;
