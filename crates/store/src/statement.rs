//! Statements: their text, and the values that it refers to by number.

use crate::{
    Result,
    bulk::places,
    field::{Argument, Query},
    row::{Assignment, ToColumns},
};
use sqlx::{AssertSqlSafe, SqlSafeStr};

/// A statement about values: `$1` is the first of them.
pub(crate) fn query(sql: impl SqlSafeStr, values: &[&dyn Argument]) -> Result<Query> {
    bind(sqlx::query(sql), values)
}

/// Binds more values to a statement.
pub(crate) fn bind(query: Query, values: &[&dyn Argument]) -> Result<Query> {
    Ok(values.iter().try_fold(query, |query, value| value.bind(query))?)
}

/// Columns of one row, with the values to write to them. A statement about them has the same text for all rows of a
/// table, so that it is prepared once.
pub(crate) struct Assignments<'a>(Vec<Assignment<'a>>);

impl<'a> Assignments<'a> {
    pub(crate) fn new(columns: &[Assignment<'a>]) -> Self {
        Self(columns.to_vec())
    }

    /// All columns of a struct.
    pub(crate) fn of(spec: &'a impl ToColumns) -> Self {
        Self(Vec::new()).with(spec)
    }

    pub(crate) fn with(mut self, spec: &'a impl ToColumns) -> Self {
        spec.to_columns("", &mut self.0);
        self
    }

    pub(crate) fn and(mut self, columns: &[Assignment<'a>]) -> Self {
        self.0.extend_from_slice(columns);
        self
    }

    /// The value for a column, if it has one.
    pub(crate) fn get(&self, column: &str) -> Option<&'a dyn Argument> {
        self.0.iter().find(|(name, _)| *name == column).map(|(_, value)| *value)
    }

    /// Inserts the row. `rest` follows the values.
    pub(crate) fn insert(&self, table: &str, rest: &str) -> Result<Query> {
        let numbers = self.each(|_, number| format!("${number}"));
        self.query(format!("INSERT INTO {table} ({}) VALUES ({numbers}) {rest}", self.names()), &[])
    }

    /// Inserts rows that have the same columns.
    pub(crate) fn insert_all(table: &str, rows: &[Self]) -> Result<Query> {
        let Some(first) = rows.first() else { return Err(sqlx::Error::RowNotFound.into()) };
        let places = places(rows.len(), first.0.len());
        let text = format!("INSERT INTO {table} ({}) VALUES {places}", first.names());
        let values: Vec<_> = rows.iter().flat_map(|row| &row.0).map(|(_, value)| *value).collect();
        // Names of columns are literals of this program.
        query(AssertSqlSafe(text), &values)
    }

    /// Inserts the row if a condition holds: `from` follows a SELECT of the values, and may refer to those by [`number`].
    ///
    /// [`number`]: Self::number
    pub(crate) fn insert_from(&self, table: &str, from: &str) -> Result<Query> {
        let numbers = self.each(|_, number| format!("${number}"));
        self.query(format!("INSERT INTO {table} ({}) SELECT {numbers} {from}", self.names()), &[])
    }

    /// Updates the row of an id. `also` are more assignments, and `rest` follows the condition.
    pub(crate) fn update(&self, table: &str, also: &str, id: &dyn Argument, rest: &str) -> Result<Query> {
        let set = self.each(|name, number| format!("{name} = ${number}"));
        let id_number = self.0.len() + 1;
        self.query(format!("UPDATE {table} SET {set}{also} WHERE id = ${id_number} {rest}"), &[id])
    }

    /// Updates the rows that have this value in a column. `rest` follows the condition.
    pub(crate) fn update_all(
        &self,
        table: &str,
        also: &str,
        (column, value): Assignment<'_>,
        rest: &str,
    ) -> Result<Query> {
        let set = self.each(|name, number| format!("{name} = ${number}"));
        let number = self.0.len() + 1;
        self.query(format!("UPDATE {table} SET {set}{also} WHERE {column} = ${number} {rest}"), &[value])
    }

    /// `a = excluded.a, b = excluded.b`: what an upsert does to a row that is there.
    pub(crate) fn excluded(&self) -> String {
        self.each(|name, _| format!("{name} = excluded.{name}"))
    }

    /// The number of a column's value in the statement's text.
    pub(crate) fn number(&self, column: &str) -> usize {
        1 + self.0.iter().take_while(|(name, _)| *name != column).count()
    }

    fn names(&self) -> String {
        self.each(|name, _| name.to_owned())
    }

    fn each(&self, text: impl Fn(&str, usize) -> String) -> String {
        let texts: Vec<_> = self.0.iter().zip(1..).map(|((name, _), number)| text(name, number)).collect();
        texts.join(", ")
    }

    fn query(&self, text: String, more: &[&dyn Argument]) -> Result<Query> {
        let values: Vec<_> = self.0.iter().map(|(_, value)| *value).collect();
        // Names of columns are literals of this program.
        bind(query(AssertSqlSafe(text), &values)?, more)
    }
}
