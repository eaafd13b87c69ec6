//! Lists: filtered, sorted, a page at a time.
//!
//! A [`Listing`] describes what can be listed: its properties, their types, and the expression behind each. All else
//! follows from it: the statements here, the reading of query strings, the errors and the OpenAPI document. Callers'
//! values are bound; of their text, nothing gets into a statement.

mod listings;
mod sql;

use crate::{Page, PageRequest, Result, Store};
use jiff::Timestamp;
pub use listings::{
    AGENTS, API_ACCOUNTS, CONNECTION_CHANGES, ENVIRONMENTS, EXECUTIONS, FRONTDOORS, ORGANIZATION_EXECUTIONS,
    SHARES, TUNNELS,
};
use sql::Sql;
use sqlx::{Any, Row, any::AnyRow};

/// What a property holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropertyType {
    Text,
    /// An id with this prefix; a plain UUID with none.
    Id(&'static str),
    Integer,
    Boolean,
    Timestamp,
    /// One of these.
    Enum(&'static [&'static str]),
    /// Names with a text each: filtered by the text of one name.
    Tags,
    /// Texts: filtered by one of them.
    List,
}

/// A property of what is listed, as the API calls it.
#[derive(Debug, PartialEq, Eq)]
pub struct Property {
    pub name: &'static str,
    pub kind: PropertyType,
    /// May be absent. An absent value sorts before all others.
    pub optional: bool,
    sql: &'static str,
    /// Of a property that another row has: how that row is found.
    by: Option<By>,
}

impl Property {
    pub const fn new(name: &'static str, kind: PropertyType, sql: &'static str) -> Self {
        Self { name, kind, optional: false, sql, by: None }
    }

    pub(crate) const fn found_by(self, by: By) -> Self {
        Self { by: Some(by), ..self }
    }

    pub(crate) const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }
}

/// How a row is filtered by what another row has, without a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct By {
    /// Names the other row.
    pub(crate) column: &'static str,
    /// Finds it: the value follows.
    pub(crate) find: &'static str,
    /// Each value is of one row at most.
    pub(crate) is_unique: bool,
}

/// What can be listed, and how. Every property can be filtered and sorted by.
#[derive(Debug)]
pub struct Listing {
    pub properties: &'static [Property],
    /// Columns, tables and joins.
    select: &'static str,
    from: &'static str,
    /// The table of the rows themselves, where there are joins: what is counted, and what a page is found in. To join
    /// all rows before a page would take many times as long.
    table: Option<&'static str>,
    /// The expression that ties are broken on.
    id: &'static str,
    /// Holds for all rows that there are for the API; empty if all do.
    only: &'static str,
    /// What is left out unless it is asked for.
    hidden: Option<Hidden>,
    /// Where it stands how many rows there are.
    numbers: Option<Numbers>,
}

/// A table that has, for each set of values of some columns, how many rows have them. The columns are called as in the
/// table of the rows.
#[derive(Debug)]
struct Numbers {
    table: &'static str,
    number: &'static str,
    /// Those that only these columns are asked for.
    properties: &'static [&'static str],
}

/// Rows that were deleted stay readable for a time; lists have them only if `status=DELETED` or `deletedAt` is asked
/// for.
#[derive(Debug)]
struct Hidden {
    live: &'static str,
    deleted_at: &'static str,
}

impl Listing {
    /// Of what is kept in memory.
    pub const fn in_memory(properties: &'static [Property]) -> Self {
        Self { properties, select: "", from: "", table: None, id: "", only: "", hidden: None, numbers: None }
    }

    pub(crate) const fn new(
        properties: &'static [Property],
        select: &'static str,
        from: &'static str,
        id: &'static str,
    ) -> Self {
        Self { properties, select, from, table: None, id, only: "", hidden: None, numbers: None }
    }

    pub(crate) const fn of_table(self, table: &'static str) -> Self {
        Self { table: Some(table), ..self }
    }

    pub(crate) const fn only(self, only: &'static str) -> Self {
        Self { only, ..self }
    }

    pub(crate) const fn hiding_deleted(self, live: &'static str, deleted_at: &'static str) -> Self {
        Self { hidden: Some(Hidden { live, deleted_at }), ..self }
    }

    pub(crate) const fn numbered(
        self,
        table: &'static str,
        number: &'static str,
        properties: &'static [&'static str],
    ) -> Self {
        Self { numbers: Some(Numbers { table, number, properties }), ..self }
    }

    pub fn property(&self, name: &str) -> Option<&'static Property> {
        self.properties.iter().find(|p| p.name == name)
    }
}

/// What a caller wants of a list. Its properties are those of the listing that it is put to.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    pub page: PageRequest,
    pub sort: Vec<Sort>,
    /// All of them hold.
    pub filters: Vec<Filter>,
    /// What was deleted before is not there any more.
    pub kept_since: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    pub property: &'static Property,
    pub descending: bool,
}

/// One of the values is wanted; without any, no row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub property: &'static Property,
    pub values: Vec<Wanted>,
}

/// A value that a property may have; of its property's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Text(String),
    /// In a list.
    Item(String),
    Integer(i64),
    Boolean(bool),
    /// Both ends belong to it.
    Times(Option<Timestamp>, Option<Timestamp>),
    Tag {
        name: String,
        value: String,
    },
}

impl From<PageRequest> for ListRequest {
    fn from(page: PageRequest) -> Self {
        Self { page, ..Self::default() }
    }
}

/// Whose rows: a column that has one of these values.
type Owner = (&'static str, Vec<String>);
type Scope = Option<Owner>;

impl Store {
    pub(crate) async fn list<T>(
        &self,
        listing: &'static Listing,
        scope: Scope,
        request: &ListRequest,
        read: fn(&AnyRow) -> Result<T>,
    ) -> Result<Page<T>> {
        let scope = scope.as_ref();
        let total = total(Sql::count(listing, scope, request), &self.readers).await?;
        let offset = request.page.offset();
        if offset >= total {
            return page(&[], total, read);
        }
        if offset <= total / 2 {
            let rows =
                Sql::page(listing, scope, request, Offset::Start(offset)).fetch_all(&self.readers).await?;
            return page(&rows, total, read);
        }
        // To pass over very many rows takes longer than all else. From the end, a page is where it is only as long as no
        // row comes or goes.
        let mut tx = self.snapshot().await?;
        let total = self::total(Sql::count(listing, scope, request), &mut *tx).await?;
        let mut rows = match total - offset {
            left @ 1.. => Sql::page(listing, scope, request, Offset::End(left)).fetch_all(&mut *tx).await?,
            // They have gone meanwhile.
            _ => Vec::new(),
        };
        tx.commit().await?;
        rows.reverse();
        page(&rows, total, read)
    }
}

/// Where a page begins.
#[derive(Debug, Clone, Copy)]
enum Offset {
    /// After so many rows.
    Start(i64),
    /// With so many rows to the end.
    End(i64),
}

async fn total<'a>(count: Sql, db: impl sqlx::Executor<'a, Database = Any>) -> Result<i64> {
    Ok(count.fetch_one(db).await?.try_get(0)?)
}

fn page<T>(rows: &[AnyRow], total: i64, read: fn(&AnyRow) -> Result<T>) -> Result<Page<T>> {
    let rows = rows.iter().map(read).collect::<Result<_>>()?;
    Ok(Page { rows, total: u64::try_from(total).unwrap_or(0) })
}

#[cfg(test)]
mod tests;
