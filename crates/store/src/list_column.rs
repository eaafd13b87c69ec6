//! Columns that lists can be filtered and sorted by. Each resource's file declares its own with [`columns!`].
//!
//! A column is known by its SQL only; what the API calls it is the API's matter.

use std::fmt;

/// What a column holds, and so how it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    Text,
    Integer,
    Boolean,
    Time,
    /// A JSON object of strings, which are rows of a table, too: filtered by one name and its value.
    Tags,
    /// A JSON array of strings: filtered by one of them.
    List,
}

/// An expression over a row, and how it is compared.
#[derive(Debug, PartialEq, Eq)]
pub struct Column {
    pub kind: ColumnType,
    /// May be NULL. NULL sorts before all values.
    pub optional: bool,
    pub(crate) sql: &'static str,
    pub(crate) lookup: Option<Lookup>,
}

impl Column {
    pub const fn new(kind: ColumnType, sql: &'static str) -> Self {
        Self { kind, optional: false, sql, lookup: None }
    }

    pub(crate) const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    pub(crate) const fn found_by(self, lookup: Lookup) -> Self {
        Self { lookup: Some(lookup), ..self }
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sql)
    }
}

/// How a row is filtered by a value that another row has, without a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lookup {
    /// Refers to the other row.
    pub(crate) column: &'static str,
    /// Selects the other row; the value follows.
    pub(crate) find: &'static str,
    /// Each value belongs to at most one row.
    pub(crate) is_unique: bool,
}

/// Declares columns, and `ALL` of them: `NAME = Text("t.name");`.
macro_rules! columns {
    ($($name:ident = $kind:ident($sql:expr)$(.$with:ident($($arg:expr)?))*;)+) => {
        $(pub static $name: $crate::list_column::Column =
            $crate::list_column::Column::new($crate::list_column::ColumnType::$kind, $sql)$(.$with($($arg)?))*;)+
        pub static ALL: &[&$crate::list_column::Column] = &[$(&$name),+];
    };
}
pub(crate) use columns;
