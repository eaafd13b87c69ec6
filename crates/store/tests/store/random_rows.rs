//! Random rows in every table of a SQLite database, as its schema permits them.

use proptest::prelude::*;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};
use std::collections::BTreeMap;

/// Rows of each table that are tried, in each round.
const TRIED: usize = 4;
/// A row may refer to one of a table that is filled in the round before.
const ROUNDS: usize = 5;

/// What a column gets.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    is_null: bool,
    number: i64,
    text: String,
}

pub(crate) fn cells() -> impl Strategy<Value = Vec<Cell>> {
    let number = prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -3_i64..3, Just(1 << 53)];
    let text = prop_oneof![
        "\\PC{0,12}",
        Just(String::new()),
        Just("NULL".to_owned()),
        Just("007".to_owned()),
        Just("1e5".to_owned()),
        Just("'\"\\\n\t\u{7f}\u{2028}".to_owned()),
        Just("e\u{301}\u{1f600}\u{10ffff}".to_owned()),
    ];
    let cell = (prop::bool::weighted(0.3), number, text);
    let cell = cell.prop_map(|(is_null, number, text)| Cell { is_null, number, text });
    prop::collection::vec(cell, 300..500)
}

struct Column {
    name: String,
    is_text: bool,
    may_be_null: bool,
}

/// Columns that refer to columns of another table, as (own, theirs).
struct Reference {
    table: String,
    columns: Vec<(String, String)>,
}

struct Shape {
    table: String,
    columns: Vec<Column>,
    references: Vec<Reference>,
}

async fn tables(db: &mut AnyConnection) -> Vec<String> {
    let select = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
                  AND name <> '_sqlx_migrations' ORDER BY name";
    let rows = sqlx::query(select).fetch_all(db).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn columns(db: &mut AnyConnection, table: &str) -> Vec<Column> {
    let select = "SELECT name, type, \"notnull\", pk FROM pragma_table_info($1) ORDER BY cid";
    let rows = sqlx::query(select).bind(table.to_owned()).fetch_all(db).await.unwrap();
    let column = |row: &sqlx::any::AnyRow| Column {
        name: row.get(0),
        is_text: row.get::<String, _>(1) == "TEXT",
        may_be_null: row.get::<i64, _>(2) == 0 && row.get::<i64, _>(3) == 0,
    };
    rows.iter().map(column).collect()
}

async fn references(db: &mut AnyConnection, table: &str) -> Vec<Reference> {
    let select = "SELECT f.id, f.\"table\", f.\"from\", COALESCE(f.\"to\", \
                  (SELECT name FROM pragma_table_info(f.\"table\") WHERE pk = f.seq + 1)) \
                  FROM pragma_foreign_key_list($1) f ORDER BY f.id, f.seq";
    let rows = sqlx::query(select).bind(table.to_owned()).fetch_all(db).await.unwrap();
    let mut all = BTreeMap::new();
    for row in rows {
        let reference = all
            .entry(row.get::<i64, _>(0))
            .or_insert_with(|| Reference { table: row.get(1), columns: Vec::new() });
        reference.columns.push((row.get(2), row.get(3)));
    }
    let mut all: Vec<_> = all.into_values().collect();
    // The last one decides about a column that is in several.
    all.sort_by_key(|reference| reference.columns.len());
    all
}

/// A literal, so that each type of value has one way.
fn literal(column: &Column, cell: &Cell) -> String {
    match (cell.is_null && column.may_be_null, column.is_text) {
        (true, _) => "NULL".to_owned(),
        (false, true) => format!("'{}'", cell.text.replace('\'', "''")),
        // SQLite has no literal of the least number.
        (false, false) if cell.number == i64::MIN => format!("({} - 1)", i64::MIN + 1),
        (false, false) => cell.number.to_string(),
    }
}

impl Shape {
    async fn of(db: &mut AnyConnection, table: String) -> Self {
        let columns = columns(db, &table).await;
        Self { references: references(db, &table).await, columns, table }
    }

    /// Tries to insert a row. What a constraint of the schema forbids is left out.
    async fn insert(&self, db: &mut AnyConnection, cells: &mut impl Iterator<Item = &Cell>, is_first: bool) {
        let mut values = BTreeMap::new();
        for column in &self.columns {
            let mut cell = cells.next().unwrap().clone();
            if is_first && !column.is_text {
                // The only row of a table.
                (cell.number, cell.is_null) = (1, false);
            }
            values.insert(column.name.as_str(), literal(column, &cell));
        }
        for Reference { table, columns } in &self.references {
            let theirs = columns.iter().map(|(_, their)| format!("quote({their})")).collect::<Vec<_>>();
            let select = format!("SELECT {} FROM {table} ORDER BY rowid", theirs.join(", "));
            let rows = sqlx::query(AssertSqlSafe(select)).fetch_all(&mut *db).await.unwrap();
            let picked = cells.next().unwrap().number.unsigned_abs();
            let Some(row) = rows.get(usize::try_from(picked).unwrap() % rows.len().max(1)) else { continue };
            for ((own, _), n) in columns.iter().zip(0..) {
                if values[own.as_str()] != "NULL" {
                    values.insert(own, row.get(n));
                }
            }
        }
        let names = values.keys().copied().collect::<Vec<_>>().join(", ");
        let values = values.values().cloned().collect::<Vec<_>>().join(", ");
        let insert = format!("INSERT OR IGNORE INTO {} ({names}) VALUES ({values})", self.table);
        if let Err(error) = sqlx::query(AssertSqlSafe(insert)).execute(db).await {
            assert!(error.to_string().contains("FOREIGN KEY"), "{}: {error}", self.table);
        }
    }
}

/// Inserts random rows into every table.
pub(crate) async fn fill(db: &mut AnyConnection, cells: &[Cell]) {
    let mut shapes = Vec::new();
    for table in tables(db).await {
        shapes.push(Shape::of(db, table).await);
    }
    let mut cells = cells.iter().cycle();
    for round in 0..ROUNDS {
        for shape in &shapes {
            for tried in 0..TRIED {
                shape.insert(db, &mut cells, round + tried == 0).await;
            }
        }
    }
}

/// All rows of a SQLite database with the types of their values, as SQLite itself says them.
pub(crate) async fn rows_of(db: &mut AnyConnection) -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    for table in tables(db).await {
        let quoted = columns(db, &table).await;
        let quoted: Vec<_> = quoted.iter().map(|column| format!("quote({})", column.name)).collect();
        let select = format!("SELECT {} FROM {table} ORDER BY 1", quoted.join(" || ',' || "));
        let rows = sqlx::query(AssertSqlSafe(select)).fetch_all(&mut *db).await.unwrap();
        all.push((table, rows.iter().map(|row| row.get(0)).collect()));
    }
    all
}
