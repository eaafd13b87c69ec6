//! The statements of lists, and their bound values.

use super::{Filter, ListRequest, Listing, Numbers, Offset, Owner, PropertyType, Wanted};
use crate::Result;
use jiff::Timestamp;
use sqlx::{Any, AssertSqlSafe, Executor, any::AnyArguments, any::AnyRow, query::Query};
use wicketgate_model::Status;

/// A statement under construction. Its text is made of this program's own words only.
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
    pub(super) fn count(listing: &Listing, scope: Option<&Owner>, request: &ListRequest) -> Self {
        let numbers = listing.numbers.as_ref().filter(|numbers| {
            let stands = |f: &Filter| numbers.properties.contains(&f.property.name) && !asks_for_deleted(f);
            request.filters.iter().all(stands)
        });
        let text = match numbers {
            // PostgreSQL's sum of integers is a decimal.
            Some(Numbers { table, number, .. }) => {
                format!("SELECT CAST(COALESCE(SUM({number}), 0) AS BIGINT) FROM {table}")
            }
            None => format!("SELECT COUNT(*) FROM {}", listing.table.unwrap_or(listing.from)),
        };
        let mut sql = Self { text, values: Vec::new() };
        sql.conditions(listing, scope, request);
        sql
    }

    /// From the end, the rows are in the opposite order.
    pub(super) fn page(
        listing: &Listing,
        scope: Option<&Owner>,
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
        // What another row is asked for is not in the table itself.
        let table = listing.table.filter(|_| request.sort.iter().all(|s| s.property.by.is_none()));
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
            // SQLite has NULL first, PostgreSQL last. Said only where it matters: an index has no such word.
            let order = match (sort.descending != is_backwards, sort.property.optional) {
                (false, false) => "ASC",
                (false, true) => "ASC NULLS FIRST",
                (true, false) => "DESC",
                (true, true) => "DESC NULLS LAST",
            };
            self.text.push_str(&format!("{} {order}, ", sort.property.sql));
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

    fn conditions(&mut self, listing: &Listing, scope: Option<&Owner>, request: &ListRequest) {
        let mut is_first = true;
        if let Some((column, owners)) = scope {
            self.and(&mut is_first);
            self.one_of(column, owners.iter().map(|o| Value::Text(o.clone())));
        }
        if !listing.only.is_empty() {
            self.and(&mut is_first);
            self.text.push_str(listing.only);
        }
        if let Some(hidden) = &listing.hidden {
            if !request.filters.iter().any(asks_for_deleted) {
                self.and(&mut is_first);
                self.text.push_str(hidden.live);
            } else if let Some(since) = request.kept_since {
                self.and(&mut is_first);
                self.text.push_str(&format!("({0} IS NULL OR {0} >= ", hidden.deleted_at));
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
        let column = filter.property.sql;
        // The simple values in one list, which an index serves; the others each for itself.
        let (simple, others): (Vec<_>, Vec<_>) = filter.values.iter().partition(|v| v.simple().is_some());
        if filter.values.is_empty() {
            return self.text.push_str("1 = 0");
        }
        self.text.push('(');
        let mut is_first = true;
        let simple: Vec<_> = simple.into_iter().filter_map(Wanted::simple).collect();
        if !simple.is_empty() {
            is_first = false;
            match filter.property.by {
                // Where it is one row, it is said so: only then an index keeps the order of what follows.
                Some(by) => {
                    let is_one = by.is_unique && simple.len() == 1;
                    let equals = if is_one { "=" } else { "IN" };
                    self.text.push_str(&format!("{} {equals} ({}", by.column, by.find));
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
                Wanted::Times(from, to) => self.times(column, *from, *to),
                Wanted::Tag { name, value } => {
                    self.part(column, format!("{}:{}", quoted(name), quoted(value)));
                }
                Wanted::Item(text) => self.part(column, quoted(text)),
                Wanted::Text(_) | Wanted::Integer(_) | Wanted::Boolean(_) => {}
            }
        }
        self.text.push(')');
    }

    /// PostgreSQL knows no empty list: it holds nothing.
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

    /// Tags and lists are kept as JSON without spaces. Their texts, in quotes, are never part of another text, where
    /// quotes are escaped; and unlike LIKE, REPLACE minds case in both databases.
    fn part(&mut self, column: &str, part: String) {
        self.text.push_str(&format!("REPLACE({column}, "));
        self.bind(Value::Text(part));
        self.text.push_str(&format!(", '') <> {column}"));
    }

    fn query(self) -> Query<'static, Any, AnyArguments> {
        // What callers send is in the values.
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

impl Wanted {
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

fn asks_for_deleted(filter: &Filter) -> bool {
    let deleted = |v: &Wanted| matches!(v, Wanted::Text(status) if status == Status::Deleted.as_str());
    match (filter.property.name, filter.property.kind) {
        ("deletedAt", PropertyType::Timestamp) => true,
        ("status", PropertyType::Enum(_)) => filter.values.iter().any(deleted),
        _ => false,
    }
}
