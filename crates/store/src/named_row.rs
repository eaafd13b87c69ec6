//! A row as a message names it.

use std::fmt;

/// Its text is for a person, who knows the name, and says the id too, which is unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRow {
    pub id: String,
    pub name: String,
}

impl NamedRow {
    pub fn new(id: &impl ToString, name: &impl ToString) -> Self {
        Self { id: id.to_string(), name: name.to_string() }
    }
}

impl fmt::Display for NamedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" ({})", self.name, self.id)
    }
}
