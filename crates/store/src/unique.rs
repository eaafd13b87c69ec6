//! Errors of the database, of which those of unique indexes name a column.

use crate::{
    ShareRow, StoreError, TunnelRow,
    provisioned::{Provisioned, Unique},
};

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let taken = error.as_database_error().filter(|e| e.is_unique_violation()).and_then(|e| {
            let text = e.constraint().unwrap_or_else(|| e.message());
            violated::<ShareRow>(text).or_else(|| violated::<TunnelRow>(text))
        });
        match taken {
            Some(unique) => Self::Conflict { column: unique.column, with: None },
            None => Self::Database(error),
        }
    }
}

/// PostgreSQL's error names the index, SQLite's its columns.
fn violated<R: Provisioned>(text: &str) -> Option<&'static Unique> {
    let columns = |[first, second]: [&str; 2]| format!("{0}.{first}, {0}.{second}", R::TABLE);
    R::UNIQUE.iter().find(|unique| text == unique.index || text.ends_with(&columns(unique.columns)))
}
