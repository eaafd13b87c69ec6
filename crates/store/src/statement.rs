//! Statements: their text, and the values that it refers to by number.

use crate::{
    Result,
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

/// A column that an insert fills with what it finds by the value of another column of the row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LookedUp {
    pub(crate) column: &'static str,
    /// Up to the column that is compared, such as `SELECT name FROM agent WHERE id`.
    pub(crate) select: &'static str,
    /// The column whose value is looked for.
    pub(crate) by: &'static str,
}

/// Columns of one row, with the values to write to them. A statement about them has the same text for all rows of a
/// table, so that it is prepared once.
pub(crate) struct Assignments<'a> {
    given: Vec<Assignment<'a>>,
    looked_up: &'static [LookedUp],
}

impl<'a> Assignments<'a> {
    pub(crate) fn new(columns: &[Assignment<'a>]) -> Self {
        Self { given: columns.to_vec(), looked_up: &[] }
    }

    /// All columns of a struct.
    pub(crate) fn of(spec: &'a impl ToColumns) -> Self {
        Self::new(&[]).with(spec)
    }

    pub(crate) fn with(mut self, spec: &'a impl ToColumns) -> Self {
        spec.to_columns("", &mut self.given);
        self
    }

    pub(crate) fn and(mut self, columns: &[Assignment<'a>]) -> Self {
        self.given.extend_from_slice(columns);
        self
    }

    /// An insert fills these columns, too. Updates do not.
    pub(crate) fn looking_up(self, looked_up: &'static [LookedUp]) -> Self {
        Self { looked_up, ..self }
    }

    /// The value for a column, if it has one.
    pub(crate) fn get(&self, column: &str) -> Option<&'a dyn Argument> {
        self.given.iter().find(|(name, _)| *name == column).map(|(_, value)| *value)
    }

    /// Inserts the row. `rest` follows the values.
    pub(crate) fn insert(&self, table: &str, rest: &str) -> Result<Query> {
        let values = self.values(0);
        self.query(format!("INSERT INTO {table} ({}) VALUES ({values}) {rest}", self.names()), &[])
    }

    /// Inserts rows that have the same columns.
    pub(crate) fn insert_all(table: &str, rows: &[Self]) -> Result<Query> {
        let Some(first) = rows.first() else { return Err(sqlx::Error::RowNotFound.into()) };
        let width = first.given.len();
        let places: Vec<_> = (0..rows.len()).map(|row| format!("({})", first.values(row * width))).collect();
        let text = format!("INSERT INTO {table} ({}) VALUES {}", first.names(), places.join(", "));
        let values: Vec<_> = rows.iter().flat_map(|row| &row.given).map(|(_, value)| *value).collect();
        // Names of columns are literals of this program.
        query(AssertSqlSafe(text), &values)
    }

    /// Inserts the row if a condition holds: `from` follows a SELECT of the values, and may refer to those by [`number`].
    ///
    /// [`number`]: Self::number
    pub(crate) fn insert_from(&self, table: &str, from: &str) -> Result<Query> {
        let values = self.values(0);
        self.query(format!("INSERT INTO {table} ({}) SELECT {values} {from}", self.names()), &[])
    }

    /// Updates the row of an id. `also` are more assignments, and `rest` follows the condition.
    pub(crate) fn update(&self, table: &str, also: &str, id: &dyn Argument, rest: &str) -> Result<Query> {
        let set = self.each(|name, number| format!("{name} = ${number}"));
        let id_number = self.given.len() + 1;
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
        let number = self.given.len() + 1;
        self.query(format!("UPDATE {table} SET {set}{also} WHERE {column} = ${number} {rest}"), &[value])
    }

    /// `a = excluded.a, b = excluded.b`: what an upsert does to a row that is there.
    pub(crate) fn excluded(&self) -> String {
        self.each(|name, _| format!("{name} = excluded.{name}"))
    }

    /// The number of a column's value in the statement's text.
    pub(crate) fn number(&self, column: &str) -> usize {
        1 + self.given.iter().take_while(|(name, _)| *name != column).count()
    }

    /// Of an insert.
    fn names(&self) -> String {
        let given = self.given.iter().map(|(name, _)| *name);
        given.chain(self.looked_up.iter().map(|found| found.column)).collect::<Vec<_>>().join(", ")
    }

    /// What an insert writes to each of the [`names`](Self::names), after so many values of rows before.
    fn values(&self, before: usize) -> String {
        let given = (1..=self.given.len()).map(|number| format!("${}", before + number));
        let found = self
            .looked_up
            .iter()
            .map(|LookedUp { select, by, .. }| format!("({select} = ${})", before + self.number(by)));
        given.chain(found).collect::<Vec<_>>().join(", ")
    }

    fn each(&self, text: impl Fn(&str, usize) -> String) -> String {
        let texts: Vec<_> =
            self.given.iter().zip(1..).map(|((name, _), number)| text(name, number)).collect();
        texts.join(", ")
    }

    fn query(&self, text: String, more: &[&dyn Argument]) -> Result<Query> {
        let values: Vec<_> = self.given.iter().map(|(_, value)| *value).collect();
        // Names of columns are literals of this program.
        bind(query(AssertSqlSafe(text), &values)?, more)
    }
}
