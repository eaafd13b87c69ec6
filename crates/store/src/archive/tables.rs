//! The rows of all tables, as lines of JSON: `{"table": …, "columns": […]}`, and an array of values for each row.
//!
//! A value is NULL, a text or a 64-bit integer: the schema has no other type.

use super::checksum::{Checksum, TableSum};
use crate::{Result, StoreError, bulk, database_name::is_postgres};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{
    AnyConnection, AssertSqlSafe, Executor as _, Row as _, TypeInfo as _, ValueRef as _, any::AnyRow,
};
use std::io::Write;

/// All tables but that of the migrations. A row refers to rows of tables before its own.
pub(super) const TABLES: &[&str] = &[
    "installation",
    "last_backup",
    "shared_secret",
    "admin_token",
    "revision",
    "server",
    "gateway",
    "gateway_link",
    "join_token",
    "frontdoor",
    "api_account",
    "environment",
    "environment_gateways",
    "agent",
    "agent_link",
    "agent_report",
    "enrollment",
    "ipsec_tunnel",
    "ipsec_tunnel_tag",
    "endpoint_place",
    "endpoint_state",
    "tunnel_endpoint",
    "connection_change",
    "peer_address_hold",
    "clear_tunnel_key",
    "clear_remains",
    "ipsec_share",
    "ipsec_share_tag",
    "ipsec_share_count",
    "handover_link",
    "site_session",
    "console_session",
    "idempotency",
    "execution",
    "event",
    "event_sequence",
    "event_forgotten",
    "traffic",
    "traffic_failure",
    "traffic_report",
];

/// What stands before the rows of a table.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TableHead {
    pub(super) table: String,
    pub(super) columns: Vec<String>,
}

/// A column, with whether it has texts, and otherwise integers.
struct Column {
    name: String,
    is_text: bool,
}

/// Writes a table with its columns in the order of their names, and returns how many rows it has, with their checksum.
///
/// # Errors
/// Also if a column has a value of another type than its own, which SQLite permits: the other database could not have it.
pub(super) async fn write(db: &mut AnyConnection, table: &str, to: &mut impl Write) -> Result<TableSum> {
    let mut columns = columns(db, table).await?;
    columns.sort_by(|a, b| a.name.cmp(&b.name));
    let names: Vec<_> = columns.iter().map(|column| column.name.clone()).collect();
    // Names of tables are literals of this program, those of columns are from its migrations.
    let select = AssertSqlSafe(format!("SELECT {} FROM {table}", names.join(", ")));
    let mut text = Vec::new();
    line(&mut text, &TableHead { table: table.to_owned(), columns: names })?;
    let mut sum = Checksum::new(&text);
    to.write_all(&text).map_err(StoreError::Archive)?;
    let mut rows = sqlx::query(select).fetch(db);
    while let Some(row) = rows.try_next().await? {
        let values = columns.iter().zip(0..).map(|(column, n)| value(&row, n, column));
        text.clear();
        line(&mut text, &values.collect::<Result<Vec<_>>>()?)?;
        sum.add_row(&text);
        to.write_all(&text).map_err(StoreError::Archive)?;
    }
    Ok(sum.of(table))
}

/// Writes a line of JSON.
pub(super) fn line(to: &mut impl Write, value: &impl Serialize) -> Result<()> {
    let written = serde_json::to_writer(&mut *to, value).map_err(std::io::Error::from);
    written.and_then(|()| to.write_all(b"\n")).map_err(StoreError::Archive)
}

fn value(row: &AnyRow, n: usize, column: &Column) -> Result<Value> {
    let raw = row.try_get_raw(n)?;
    let other = |_| StoreError::Corrupt { column: column.name.clone() };
    Ok(match (raw.is_null(), raw.type_info().name() == "TEXT") {
        (true, _) => Value::Null,
        (false, is_text) if is_text != column.is_text => {
            return Err(StoreError::Corrupt { column: column.name.clone() });
        }
        (false, true) => row.try_get::<String, _>(n).map_err(other)?.into(),
        (false, false) => row.try_get::<i64, _>(n).map_err(other)?.into(),
    })
}

async fn columns(db: &mut AnyConnection, table: &str) -> Result<Vec<Column>> {
    let select = match db.backend_name() {
        "PostgreSQL" => {
            "SELECT column_name::text, data_type::text FROM information_schema.columns \
             WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position"
        }
        _ => "SELECT name, type FROM pragma_table_info($1) ORDER BY cid",
    };
    let rows = sqlx::query(select).bind(table.to_owned()).fetch_all(db).await?;
    let column = |row: &AnyRow| {
        let (name, r#type): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Column { name, is_text: r#type.eq_ignore_ascii_case("text") })
    };
    rows.iter().map(column).collect()
}

/// Whether the schema has this table.
pub(super) async fn has(db: &mut AnyConnection, table: &str) -> Result<bool> {
    Ok(!columns(db, table).await?.is_empty())
}

/// Removes what migrations have inserted.
pub(super) async fn clear(db: &mut AnyConnection) -> Result<()> {
    for table in TABLES.iter().rev() {
        // An older schema lacks some.
        if !columns(db, table).await?.is_empty() {
            sqlx::query(AssertSqlSafe(format!("DELETE FROM {table}"))).execute(&mut *db).await?;
        }
    }
    Ok(())
}

/// Whether a server has used a database: there is a Frontdoor from its first start on.
pub(super) async fn is_used(db: &mut AnyConnection) -> Result<bool> {
    if columns(db, "frontdoor").await?.is_empty() {
        return Ok(false);
    }
    let (frontdoors,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM frontdoor").fetch_one(db).await?;
    Ok(frontdoors > 0)
}

/// Commits what succeeded, and rolls back what did not. A connection that is closed rolls back.
pub(super) async fn end_transaction<T>(db: &mut AnyConnection, done: Result<T>) -> Result<T> {
    match done {
        Ok(done) => {
            let committed = db.execute("COMMIT").await;
            committed.map(|_| done).map_err(|error| StoreError::from(error).of_commit())
        }
        Err(error) => {
            // SQLite may have done so already, and a connection that is broken is closed.
            let _ = db.execute("ROLLBACK").await;
            Err(error)
        }
    }
}

/// Inserts rows into a table, in parts.
pub(super) struct Loader {
    insert: String,
    columns: Vec<Column>,
    waiting: Vec<Vec<Value>>,
}

impl Loader {
    /// Rows that are inserted at once: the least number of columns that a statement of PostgreSQL takes, 65,535, is far away.
    const AT_ONCE: usize = 64;

    pub(super) async fn new(db: &mut AnyConnection, head: &TableHead) -> Result<Self> {
        let of_schema = columns(db, &head.table).await?;
        let is_known = TABLES.contains(&head.table.as_str())
            && of_schema.len() == head.columns.len()
            && head.columns.iter().all(|name| of_schema.iter().any(|column| column.name == *name));
        if !is_known {
            return Err(StoreError::Open(format!(
                "it has a table {:?} with other columns than this version's",
                head.table
            )));
        }
        let column = |name: &String| {
            let is_text = of_schema.iter().any(|column| column.name == *name && column.is_text);
            Column { name: name.clone(), is_text }
        };
        let insert = format!("INSERT INTO {} ({}) VALUES ", head.table, head.columns.join(", "));
        Ok(Self { insert, columns: head.columns.iter().map(column).collect(), waiting: Vec::new() })
    }

    pub(super) async fn take(&mut self, db: &mut AnyConnection, row: Vec<Value>) -> Result<()> {
        self.waiting.push(row);
        if self.waiting.len() < Self::AT_ONCE {
            return Ok(());
        }
        self.finish(db).await
    }

    /// Inserts the rows that wait.
    pub(super) async fn finish(&mut self, db: &mut AnyConnection) -> Result<()> {
        for rows in bulk::parts(&std::mem::take(&mut self.waiting)) {
            let places = bulk::places(rows.len(), self.columns.len());
            let mut query = sqlx::query(AssertSqlSafe(format!("{}{places}", self.insert)));
            for row in rows {
                if row.len() != self.columns.len() {
                    return Err(StoreError::Open("it has a row with other columns".to_owned()));
                }
                for (value, column) in row.iter().zip(&self.columns) {
                    query = match (value, column.is_text) {
                        (Value::Null, true) => query.bind(None::<String>),
                        (Value::Null, false) => query.bind(None::<i64>),
                        (Value::String(text), true) => query.bind(text.clone()),
                        (Value::Number(number), false) if number.is_i64() => query.bind(number.as_i64()),
                        _ => return Err(StoreError::Corrupt { column: column.name.clone() }),
                    };
                }
            }
            query.execute(&mut *db).await?;
        }
        Ok(())
    }
}

/// Begins to read a database at one time.
pub(super) fn snapshot(place: &str) -> &'static str {
    match is_postgres(place) {
        true => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        false => "BEGIN",
    }
}
