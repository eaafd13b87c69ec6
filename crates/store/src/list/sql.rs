//! The statements of lists, and their bound values.

use super::listing::{CountTable, Filter, FilterValue, Hidden, ListRequest, Listing, Offset, Restriction};
use crate::Result;
use jiff::Timestamp;
use sqlx::{Any, AssertSqlSafe, Executor, any::AnyArguments, any::AnyRow, query::Query};
use wicketgate_model::Status;

/// A statement under construction. Its text contains literals of this program only.
#[derive(Debug, Default)]
pub(super) struct Sql {
    text: String,
    values: Vec<Value>,
}

#[derive(Debug)]
enum Value {
    Text(String),
    Integer(i64),
}

impl Sql {
    pub(super) fn count(listing: &Listing, scope: Option<&Restriction>, request: &ListRequest) -> Self {
        let counts = listing.counts.as_ref().filter(|counts| {
            let is_counted = |f: &Filter| counts.columns.contains(&f.column) && !asks_for_deleted(listing, f);
            request.filters.iter().all(is_counted)
        });
        let text = match counts {
            // PostgreSQL's sum of integers is a decimal.
            Some(CountTable { table, count, .. }) => {
                format!("SELECT CAST(COALESCE(SUM({count}), 0) AS BIGINT) FROM {table}")
            }
            None => format!("SELECT COUNT(*) FROM {}", listing.table.unwrap_or(listing.from)),
        };
        let mut sql = Self { text, values: Vec::new() };
        sql.conditions(listing, scope, request);
        sql
    }

    /// Counted from the end, the rows are in reverse order.
    pub(super) fn page(
        listing: &Listing,
        scope: Option<&Restriction>,
        request: &ListRequest,
        offset: Offset,
    ) -> Self {
        let size = i64::from(request.page.size);
        let (is_backwards, size, skipped) = match offset {
            Offset::Start(offset) => (false, size, offset),
            Offset::End(left) => (true, size.min(left), (left - size).max(0)),
        };
        let text = format!("SELECT {} FROM {}", listing.select, listing.from);
        let mut sql = Self { text, values: Vec::new() };
        // A column that is looked up is not in the table itself.
        let table = listing.table.filter(|_| request.sort.iter().all(|s| s.column.lookup.is_none()));
        if let Some(table) = table {
            sql.text.push_str(&format!(" WHERE {0} IN (SELECT {0} FROM {table}", listing.id));
        }
        sql.conditions(listing, scope, request);
        sql.order(listing, request, is_backwards);
        sql.text.push_str(" LIMIT ");
        sql.bind(Value::Integer(size));
        sql.text.push_str(" OFFSET ");
        sql.bind(Value::Integer(skipped));
        if table.is_some() {
            sql.text.push(')');
            sql.order(listing, request, is_backwards);
        }
        sql
    }

    fn order(&mut self, listing: &Listing, request: &ListRequest, is_backwards: bool) {
        self.text.push_str(" ORDER BY ");
        for sort in &request.sort {
            // SQLite sorts NULL first, PostgreSQL last. Stated only where it matters, since an index is not declared with it.
            let order = match (sort.descending != is_backwards, sort.column.optional) {
                (false, false) => "ASC",
                (false, true) => "ASC NULLS FIRST",
                (true, false) => "DESC",
                (true, true) => "DESC NULLS LAST",
            };
            self.text.push_str(&format!("{} {order}, ", sort.column.sql));
        }
        self.text.push_str(listing.id);
        self.text.push_str(if is_backwards { " DESC" } else { "" });
    }

    fn bind(&mut self, value: Value) {
        self.values.push(value);
        self.text.push_str(&format!("${}", self.values.len()));
    }

    /// Starts the next condition.
    fn and(&mut self, is_first: &mut bool) {
        self.text.push_str(if *is_first { " WHERE " } else { " AND " });
        *is_first = false;
    }

    fn conditions(&mut self, listing: &Listing, scope: Option<&Restriction>, request: &ListRequest) {
        let mut is_first = true;
        if let Some((column, owners)) = scope {
            self.and(&mut is_first);
            self.one_of(column.sql, owners.iter().map(|o| Value::Text(o.clone())));
        }
        if !listing.only.is_empty() {
            self.and(&mut is_first);
            self.text.push_str(listing.only);
        }
        if let Some(hidden) = &listing.hidden {
            if !request.filters.iter().any(|filter| asks_for_deleted(listing, filter)) {
                self.and(&mut is_first);
                self.text.push_str(hidden.live);
            } else if let Some(since) = request.kept_since {
                self.and(&mut is_first);
                self.text.push_str(&format!("({0} IS NULL OR {0} >= ", hidden.deleted_at.sql));
                self.bind(Value::Integer(since.as_microsecond()));
                self.text.push(')');
            }
        }
        for filter in &request.filters {
            self.and(&mut is_first);
            self.filter(filter);
        }
    }

    fn filter(&mut self, filter: &Filter) {
        let column = filter.column.sql;
        // Simple values go into one list, which an index serves; the others get a condition each.
        let (simple, others): (Vec<_>, Vec<_>) = filter.values.iter().partition(|v| v.simple().is_some());
        if filter.values.is_empty() {
            return self.text.push_str("1 = 0");
        }
        self.text.push('(');
        let mut is_first = true;
        let simple: Vec<_> = simple.into_iter().filter_map(FilterValue::simple).collect();
        if !simple.is_empty() {
            is_first = false;
            match filter.column.lookup {
                // With `=` for a single row, an index keeps the order of the rows that refer to it.
                Some(lookup) => {
                    let is_one = lookup.is_unique && simple.len() == 1;
                    let equals = if is_one { "=" } else { "IN" };
                    self.text.push_str(&format!("{} {equals} ({}", lookup.column, lookup.find));
                    self.one_of("", simple.into_iter());
                    self.text.push(')');
                }
                None => self.one_of(column, simple.into_iter()),
            }
        }
        for value in others {
            if !std::mem::take(&mut is_first) {
                self.text.push_str(" OR ");
            }
            match value {
                FilterValue::Times(from, to) => self.times(column, *from, *to),
                FilterValue::Tag { name, value } => {
                    self.part(column, format!("{}:{}", quoted(name), quoted(value)));
                }
                FilterValue::Item(text) => self.part(column, quoted(text)),
                FilterValue::Text(_) | FilterValue::Integer(_) | FilterValue::Boolean(_) => {}
            }
        }
        self.text.push(')');
    }

    /// PostgreSQL has no empty list; an empty one matches nothing.
    fn one_of(&mut self, column: &str, values: impl ExactSizeIterator<Item = Value>) {
        if values.len() == 0 {
            return self.text.push_str("1 = 0");
        }
        if values.len() == 1 {
            self.text.push_str(&format!("{column} = "));
            return values.into_iter().for_each(|value| self.bind(value));
        }
        self.text.push_str(&format!("{column} IN ("));
        for (i, value) in values.enumerate() {
            self.text.push_str(if i == 0 { "" } else { ", " });
            self.bind(value);
        }
        self.text.push(')');
    }

    fn times(&mut self, column: &str, from: Option<Timestamp>, to: Option<Timestamp>) {
        self.text.push_str(&format!("({column} IS NOT NULL"));
        for (order, end) in [(">=", from), ("<=", to)] {
            if let Some(end) = end {
                self.text.push_str(&format!(" AND {column} {order} "));
                self.bind(Value::Integer(end.as_microsecond()));
            }
        }
        self.text.push(')');
    }

    /// Tags and lists are stored as JSON without spaces. A quoted text in it is never part of another text, where quotes
    /// are escaped. Unlike LIKE, REPLACE is case-sensitive in both databases.
    fn part(&mut self, column: &str, part: String) {
        self.text.push_str(&format!("REPLACE({column}, "));
        self.bind(Value::Text(part));
        self.text.push_str(&format!(", '') <> {column}"));
    }

    fn query(self) -> Query<'static, Any, AnyArguments> {
        // Callers' input is in the values only.
        let query = sqlx::query(AssertSqlSafe(self.text));
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Text(text) => query.bind(text),
            Value::Integer(n) => query.bind(n),
        })
    }

    /// How SQLite would run it.
    #[cfg(test)]
    pub(super) fn explained(self) -> Self {
        Self { text: format!("EXPLAIN QUERY PLAN {}", self.text), ..self }
    }

    pub(super) async fn fetch_one<'a>(self, db: impl Executor<'a, Database = Any>) -> Result<AnyRow> {
        Ok(self.query().fetch_one(db).await?)
    }

    pub(super) async fn fetch_all<'a>(self, db: impl Executor<'a, Database = Any>) -> Result<Vec<AnyRow>> {
        Ok(self.query().fetch_all(db).await?)
    }
}

impl FilterValue {
    fn simple(&self) -> Option<Value> {
        match self {
            Self::Text(text) => Some(Value::Text(text.clone())),
            Self::Integer(n) => Some(Value::Integer(*n)),
            Self::Boolean(b) => Some(Value::Integer(i64::from(*b))),
            Self::Times(Some(from), Some(to)) if from == to => Some(Value::Integer(from.as_microsecond())),
            Self::Times(..) | Self::Tag { .. } | Self::Item(_) => None,
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether the filter can only be meant for deleted rows.
fn asks_for_deleted(listing: &Listing, filter: &Filter) -> bool {
    let deleted =
        |v: &FilterValue| matches!(v, FilterValue::Text(status) if status == Status::Deleted.as_str());
    listing.hidden.as_ref().is_some_and(|Hidden { status, deleted_at, .. }| {
        filter.column == *deleted_at || (filter.column == *status && filter.values.iter().any(deleted))
    })
}
