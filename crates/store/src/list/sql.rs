//! The statements of lists, and their bound values.

use super::listing::{
    CountTable, Filter, FilterValue, Hidden, KnownFalse, ListRequest, Listing, Offset, Restriction,
};
use crate::{
    Column, Result,
    field::{Argument, Query},
    statement::query,
};
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use sqlx::{Any, AssertSqlSafe, Executor, any::AnyRow};
use std::collections::BTreeMap;
use tokio::task::yield_now;
use wicketgate_model::Status;

/// Rows that are fetched before other tasks have their turn.
const AT_A_TIME: usize = 32;

/// A statement under construction. Its text contains literals of this program only.
#[derive(Default)]
pub(super) struct Sql {
    text: String,
    values: Vec<Value>,
}

type Value = Box<dyn Argument + Send>;

/// What a filter is part of.
struct Within<'a> {
    listing: &'a Listing,
    scope: Option<&'a Restriction>,
    known: Option<&'a KnownFalse>,
}

impl Sql {
    pub(super) fn count(listing: &Listing, scope: Option<&Restriction>, request: &ListRequest) -> Self {
        let counts = listing.counts.as_ref().filter(|counts| {
            let is_counted = |f: &Filter| counts.columns.contains(&f.column) && !asks_for_deleted(listing, f);
            request.filters.iter().all(is_counted)
        });
        let count = match counts {
            // PostgreSQL's sum of integers is a decimal.
            Some(CountTable { table, count, .. }) => {
                format!("CAST(COALESCE(SUM({count}), 0) AS BIGINT) FROM {table}")
            }
            None => format!("COUNT(*) FROM {}", listing.table.unwrap_or(listing.from)),
        };
        let mut sql = Self::default();
        let conditions = sql.conditions(listing, scope, request);
        sql.text = format!("SELECT {count}{conditions}");
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
        let mut sql = Self::default();
        let conditions = sql.conditions(listing, scope, request);
        let order = order(listing, request, is_backwards);
        let limit = format!("LIMIT {} OFFSET {}", sql.place(size), sql.place(skipped));
        let Listing { select, from, id, .. } = listing;
        // A column that is looked up is not in the table itself.
        let table = listing.table.filter(|_| request.sort.iter().all(|s| s.column.lookup.is_none()));
        sql.text = match table {
            Some(table) => format!(
                "SELECT {select} FROM {from} WHERE {id} IN \
                 (SELECT {id} FROM {table}{conditions} {order} {limit}) {order}"
            ),
            None => format!("SELECT {select} FROM {from}{conditions} {order} {limit}"),
        };
        sql
    }

    /// Binds a value, and returns its place in the text.
    fn place(&mut self, value: impl Argument + Send + 'static) -> String {
        self.values.push(Box::new(value));
        format!("${}", self.values.len())
    }

    fn conditions(
        &mut self,
        listing: &Listing,
        scope: Option<&Restriction>,
        request: &ListRequest,
    ) -> String {
        let mut all = Vec::new();
        if let Some((column, owners)) = scope {
            all.push(self.one_of(column.sql, owners.clone()));
        }
        if !listing.only.is_empty() {
            all.push(listing.only.to_owned());
        }
        if let Some(Hidden { live, deleted_at, .. }) = &listing.hidden {
            if !request.filters.iter().any(|filter| asks_for_deleted(listing, filter)) {
                all.push((*live).to_owned());
            } else if let Some(since) = request.kept_since {
                all.push(format!("({deleted_at} IS NULL OR {deleted_at} >= {})", self.place(since)));
            }
        }
        let within = Within { listing, scope, known: request.known.as_ref() };
        all.extend(request.filters.iter().map(|filter| self.filter(filter, &within)));
        if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) }
    }

    fn filter(&mut self, filter: &Filter, within: &Within<'_>) -> String {
        let (column, known) = (filter.column, within.known);
        let mut alternatives = Vec::new();
        let mut tags: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        // Simple values go into one list, which an index serves; the others get a condition each.
        let (mut texts, mut numbers) = (Vec::new(), Vec::new());
        for value in &filter.values {
            match value {
                FilterValue::Text(text) => texts.push(text.clone()),
                FilterValue::Integer(n) => numbers.push(*n),
                FilterValue::Boolean(is) => numbers.push(i64::from(*is)),
                FilterValue::Times(Some(from), Some(to)) if from == to => numbers.push(from.as_microsecond()),
                FilterValue::Times(from, to) => alternatives.push(self.times(column, *from, *to)),
                // No tag has a NUL, and PostgreSQL refuses it as a value.
                FilterValue::Tag { name, value } if name.contains('\0') || value.contains('\0') => {}
                FilterValue::Tag { name, value } => tags.entry(name).or_default().push(value.clone()),
                FilterValue::Item(text) => alternatives.push(self.part(column, quoted(text))),
            }
        }
        for (name, values) in tags {
            alternatives.push(self.tagged(within, name.to_owned(), values));
        }
        if !texts.is_empty() {
            alternatives.push(self.found(column, texts));
        }
        if !numbers.is_empty() {
            alternatives.push(match known.filter(|known| known.column == column) {
                Some(KnownFalse { of, values, .. }) => {
                    let of = self.one_of(of.sql, values.clone());
                    self.one_of(&format!("CASE WHEN {of} THEN 0 ELSE {column} END"), numbers)
                }
                None => self.found(column, numbers),
            });
        }
        if alternatives.is_empty() { "1 = 0".to_owned() } else { format!("({})", alternatives.join(" OR ")) }
    }

    /// The row has a tag of this name with one of the values.
    fn tagged(&mut self, within: &Within<'_>, name: String, values: Vec<String>) -> String {
        let Some(table) = within.listing.tags else { return "1 = 0".to_owned() };
        let mut conditions = vec![self.one_of("g.name", vec![name]), self.one_of("g.value", values)];
        if let Some((_, owners)) = within.scope {
            conditions.push(self.one_of("g.frontdoor", owners.clone()));
        }
        let id = within.listing.id;
        format!("{id} IN (SELECT g.id FROM {table} WHERE {})", conditions.join(" AND "))
    }

    /// The column, or that of the row that it is looked up in, has one of the values.
    fn found<T: Argument + Send + 'static>(&mut self, column: &Column, values: Vec<T>) -> String {
        let Some(lookup) = column.lookup else { return self.one_of(column.sql, values) };
        // With `=` for a single row, an index keeps the order of the rows that refer to it.
        let equals = if lookup.is_unique && values.len() == 1 { "=" } else { "IN" };
        format!("{} {equals} ({}{})", lookup.column, lookup.find, self.one_of("", values))
    }

    /// PostgreSQL has no empty list; an empty one matches nothing.
    fn one_of<T: Argument + Send + 'static>(&mut self, column: &str, values: Vec<T>) -> String {
        let places: Vec<_> = values.into_iter().map(|value| self.place(value)).collect();
        match &places[..] {
            [] => "1 = 0".to_owned(),
            [place] => format!("{column} = {place}"),
            places => format!("{column} IN ({})", places.join(", ")),
        }
    }

    fn times(&mut self, column: &Column, from: Option<Timestamp>, to: Option<Timestamp>) -> String {
        let from = from.map(|from| format!(" AND {column} >= {}", self.place(from))).unwrap_or_default();
        let to = to.map(|to| format!(" AND {column} <= {}", self.place(to))).unwrap_or_default();
        format!("({column} IS NOT NULL{from}{to})")
    }

    /// Lists are stored as JSON without spaces. A quoted text in it is never part of another text, where quotes
    /// are escaped. Unlike LIKE, REPLACE is case-sensitive in both databases.
    fn part(&mut self, column: &Column, part: String) -> String {
        format!("REPLACE({column}, {}, '') <> {column}", self.place(part))
    }

    fn query(self) -> Result<Query> {
        let values: Vec<_> = self.values.iter().map(|value| &**value as &dyn Argument).collect();
        // Callers' input is in the values only.
        query(AssertSqlSafe(self.text), &values)
    }

    /// How SQLite would run it.
    #[cfg(test)]
    pub(super) fn explained(self) -> Self {
        Self { text: format!("EXPLAIN QUERY PLAN {}", self.text), ..self }
    }

    pub(super) async fn fetch_one<'a>(self, db: impl Executor<'a, Database = Any>) -> Result<AnyRow> {
        Ok(self.query()?.fetch_one(db).await?)
    }

    pub(super) async fn fetch_all<'a>(self, db: impl Executor<'a, Database = Any>) -> Result<Vec<AnyRow>> {
        let query = self.query()?;
        let (mut fetched, mut rows) = (query.fetch(db), Vec::new());
        while let Some(row) = fetched.try_next().await? {
            rows.push(row);
            // The driver's thread may be ahead all the time: without a pause, a long list would keep other tasks waiting.
            if rows.len() % AT_A_TIME == 0 {
                yield_now().await;
            }
        }
        drop(fetched);
        Ok(rows)
    }
}

fn order(listing: &Listing, request: &ListRequest, is_backwards: bool) -> String {
    let by = request.sort.iter().map(|sort| {
        // SQLite sorts NULL first, PostgreSQL last. Stated only where it matters, since an index is not declared with it.
        let order = match (sort.descending != is_backwards, sort.column.optional) {
            (false, false) => "ASC",
            (false, true) => "ASC NULLS FIRST",
            (true, false) => "DESC",
            (true, true) => "DESC NULLS LAST",
        };
        format!("{} {order}, ", sort.column)
    });
    format!("ORDER BY {}{}{}", by.collect::<String>(), listing.id, if is_backwards { " DESC" } else { "" })
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
