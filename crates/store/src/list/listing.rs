//! What a list selects, and what a caller wants of it.

use crate::{Column, PageRequest};
use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use wicketgate_model::FrontdoorId;

/// What a list selects. Unless said otherwise, a listing is of one table.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) select: &'static str,
    /// Tables and joins.
    pub(crate) from: &'static str,
    /// The table of the rows themselves, where there are joins: rows are counted in it and a page is found in it.
    /// Joining all rows before a page would take many times as long.
    pub(crate) table: Option<&'static str>,
    /// The expression that ties are broken on.
    pub(crate) id: &'static str,
    /// A condition that all visible rows meet; empty if there is none.
    pub(crate) only: &'static str,
    /// The rows that are left out by default.
    pub(crate) hidden: Option<Hidden>,
    /// The table of the rows' tags, named `g`. They belong to the owner that the list is restricted to.
    pub(crate) tags: Option<&'static str>,
    /// Where row counts are kept.
    pub(crate) counts: Option<CountTable>,
}

/// A table that has the number of rows for each combination of some columns. These are named as in the table of the
/// rows.
#[derive(Debug)]
pub(crate) struct CountTable {
    pub(crate) table: &'static str,
    pub(crate) count: &'static str,
    /// Answers requests that filter by these columns only.
    pub(crate) columns: &'static [&'static Column],
}

/// Deleted rows stay readable for a time; lists have them only if a filter asks for the status `DELETED` or for a
/// deletion time.
#[derive(Debug)]
pub(crate) struct Hidden {
    pub(crate) live: &'static str,
    pub(crate) status: &'static Column,
    pub(crate) deleted_at: &'static Column,
}

impl Listing {
    pub(crate) const fn new(select: &'static str, from: &'static str, id: &'static str) -> Self {
        Self { select, from, table: None, id, only: "", hidden: None, tags: None, counts: None }
    }

    pub(crate) const fn only(self, only: &'static str) -> Self {
        Self { only, ..self }
    }

    /// Selects the rows that meet a condition, among those that the list shows.
    pub(crate) fn find(&self, condition: &str) -> AssertSqlSafe<String> {
        let Self { select, from, only, .. } = self;
        let and = if only.is_empty() { "" } else { " AND " };
        // All of them are literals of this program.
        AssertSqlSafe(format!("SELECT {select} FROM {from} WHERE {condition}{and}{only}"))
    }
}

/// What a caller wants of a list. Its columns are those of the listing.
#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    pub page: PageRequest,
    pub sort: Vec<Sort>,
    /// All of them must match.
    pub filters: Vec<Filter>,
    /// Leaves out rows that were deleted before.
    pub kept_since: Option<Timestamp>,
    /// What the caller knows better than the rows.
    pub known: Option<KnownFalse>,
}

/// A boolean column is false in the rows whose column `of` has one of the values, also where the row says otherwise. It
/// counts for filters only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFalse {
    pub column: &'static Column,
    pub of: &'static Column,
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    pub column: &'static Column,
    pub descending: bool,
}

/// A row matches if it has one of the values; without any, none does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub column: &'static Column,
    pub values: Vec<FilterValue>,
}

/// A value to filter by, of its column's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterValue {
    Text(String),
    /// One of a list.
    Item(String),
    Integer(i64),
    Boolean(bool),
    /// Both ends are included.
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

/// Restricts a list to the rows whose column has one of these values.
pub(super) type Restriction = (&'static Column, Vec<String>);
pub(crate) type Scope = Option<Restriction>;

/// Rows of one Frontdoor.
pub(crate) fn of(column: &'static Column, frontdoor: FrontdoorId) -> Scope {
    Some((column, vec![frontdoor.to_string()]))
}

/// Where a page starts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Offset {
    /// After this many rows.
    Start(i64),
    /// This many rows before the end.
    End(i64),
}
