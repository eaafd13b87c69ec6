//! The life of tunnels and shares: rows that a gateway provisions.
//!
//! Invariant: every accepted change gives the row a new generation and the revision of its transaction, so that no status
//! of an earlier generation applies to it, and is recorded in the same transaction.

use crate::{
    Action, Column, ColumnType, NamedRow, ResourceType, Result, Store, StoreError, Tags,
    execution::{EndsWith, Execution},
    field::Argument,
    list::Hidden,
    row::{FromRow, ToColumns},
    share_count::Counted,
    statement::Assignments,
    tag::Tagged,
    write::Write,
};
use sqlx::AssertSqlSafe;
use wicketgate_model::{FrontdoorId, Generation, Status};

/// A tunnel or a share.
pub(crate) trait Provisioned: FromRow {
    const TABLE: &'static str;
    const TYPE: ResourceType;
    /// The columns that a row is read from, in SELECT and in RETURNING.
    const COLUMNS: &'static str;

    /// The table of the tags of its rows.
    const TAGS: &'static str;

    /// The unique indexes of its live rows.
    const UNIQUE: &'static [Unique];

    fn head(&self) -> Head;

    fn tags(&self) -> &Tags;

    /// Where the row is counted, if it is.
    fn counted(&self) -> Option<Counted> {
        None
    }
}

/// The part of a row that decides whether and how it can be changed.
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) frontdoor: FrontdoorId,
    pub(crate) generation: Generation,
    pub(crate) status: Status,
}

/// A unique index.
pub(crate) struct Unique {
    pub(crate) index: &'static str,
    pub(crate) columns: [&'static str; 2],
    /// The column that a conflict is about.
    pub(crate) column: &'static Column,
    /// The condition of the rows that it is about.
    pub(crate) holds: &'static str,
}

/// Follows a condition: rows that are not deleted, nor being deleted.
pub(crate) const LIVE_YET: &str = "AND status NOT IN ('DELETING', 'DELETED')";

/// The rows that most unique indexes are about.
pub(crate) const LIVE: &str = "status <> 'DELETED'";

/// What else a change assigns.
const NEW_GENERATION: &str =
    ", generation = generation + 1, reason = NULL, message = NULL, detail_since = NULL";

/// Finds the row of the id `$1` in the Frontdoor `$2`.
fn select<R: Provisioned>() -> String {
    format!("SELECT {} FROM {} WHERE id = $1 AND frontdoor = $2", R::COLUMNS, R::TABLE)
}

impl Store {
    /// The row of an id, even if it is `DELETED`.
    pub(crate) async fn provisioned<R: Provisioned>(
        &self,
        frontdoor: FrontdoorId,
        id: &dyn Argument,
    ) -> Result<Option<R>> {
        self.find(AssertSqlSafe(select::<R>()), &[id, &frontdoor]).await
    }

    /// Adds to a conflict the row that has the value, if it is in the same Frontdoor.
    pub(crate) async fn name_conflict<R: Provisioned>(
        &self,
        made: Result<R>,
        frontdoor: FrontdoorId,
        spec: &(impl ToColumns + Sync),
    ) -> Result<R> {
        let Err(StoreError::Conflict { column, with: None }) = made else { return made };
        let values = Assignments::of(spec).and(&[("frontdoor", &frontdoor)]);
        let mut with: Option<(String, String)> = None;
        if let Some(Unique { columns: [a, b], holds, .. }) =
            R::UNIQUE.iter().find(|unique| unique.column == column)
            && let (Some(first), Some(second)) = (values.get(a), values.get(b))
        {
            let find = format!(
                "SELECT id, name FROM {} WHERE {a} = $1 AND {b} = $2 AND frontdoor = $3 AND {holds}",
                R::TABLE
            );
            with = self.find(AssertSqlSafe(find), &[first, second, &frontdoor]).await?;
        }
        Err(StoreError::Conflict { column, with: with.map(|(id, name)| NamedRow { id, name }) })
    }
}

impl Write {
    /// The row of an id, locked against updates of its status. Fails unless it is live.
    pub(crate) async fn live<R: Provisioned>(
        &mut self,
        frontdoor: FrontdoorId,
        id: &dyn Argument,
    ) -> Result<R> {
        let find = self.locking(&select::<R>(), R::TABLE);
        let row: R = self.tx.find(find, &[id, &frontdoor]).await?.ok_or(StoreError::Missing)?;
        let status = row.head().status;
        if status.is_live() { Ok(row) } else { Err(StoreError::NotLive(status)) }
    }

    /// Inserts a row with these columns, and the rest of a new row. `None` if no row is found by `from`, which follows a
    /// SELECT of the values.
    pub(crate) async fn create<R: Provisioned>(
        &mut self,
        set: Assignments<'_>,
        from: &str,
    ) -> Result<Option<R>> {
        let at = self.context.at;
        let set = set.and(&[
            ("generation", &Generation::FIRST),
            ("status", &Status::New),
            ("status_since", &at),
            ("created_at", &at),
            ("updated_at", &at),
            ("created_by", &self.context.actor),
            ("revision", &self.revision),
        ]);
        let insert = set.insert_from(R::TABLE, &format!("{from} RETURNING {}", R::COLUMNS))?;
        let Some(row) = self.tx.row(insert).await? else { return Ok(None) };
        self.record_change(None, row, Action::Create).await.map(Some)
    }

    /// Writes these columns and a new generation. Deleting, no other columns change.
    pub(crate) async fn change<R: Provisioned>(
        &mut self,
        before: &R,
        set: Assignments<'_>,
        action: Action,
    ) -> Result<R> {
        let at = self.context.at;
        let status = if action == Action::Delete { Status::Deleting } else { Status::New };
        let set = set.and(&[
            ("status", &status),
            ("status_since", &at),
            ("updated_at", &at),
            ("revision", &self.revision),
        ]);
        let returning = format!("RETURNING {}", R::COLUMNS);
        let update = set.update(R::TABLE, NEW_GENERATION, &before.head().id, &returning)?;
        let row = self.tx.row(update).await?.ok_or(StoreError::Stale)?;
        self.record_change(Some(before), row, action).await
    }

    /// Deletes the row as far as callers see it; a gateway has yet to remove it.
    pub(crate) async fn delete<R: Provisioned>(&mut self, before: &R) -> Result<R> {
        let actor = self.context.actor.clone();
        self.change(before, Assignments::new(&[("deleted_by", &actor)]), Action::Delete).await
    }

    /// As [`delete`](Self::delete), for all live rows of a Frontdoor that have this value in a column. Their number does not
    /// change how many statements find and update them.
    pub(crate) async fn delete_all<R: Provisioned>(
        &mut self,
        frontdoor: FrontdoorId,
        column: &'static str,
        value: &dyn Argument,
    ) -> Result<()> {
        let at = self.context.at;
        let set = Assignments::new(&[
            ("deleted_by", &self.context.actor),
            ("status", &Status::Deleting),
            ("status_since", &at),
            ("updated_at", &at),
            ("revision", &self.revision),
        ]);
        let update = set.update_all(
            R::TABLE,
            NEW_GENERATION,
            (column, value),
            &format!("{LIVE_YET} RETURNING id, generation"),
        )?;
        let mut deleted: Vec<(String, Generation)> = self.tx.rows(update).await?;
        // In the order in which they were created.
        deleted.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut executions = Vec::with_capacity(deleted.len());
        for (id, generation) in &deleted {
            let ends_with = EndsWith::Status(*generation);
            executions.push((frontdoor, Execution { ends_with, ..Execution::of(R::TYPE, id) }));
        }
        self.record_all(Action::Delete, &executions).await
    }

    async fn record_change<R: Provisioned>(
        &mut self,
        before: Option<&R>,
        row: R,
        action: Action,
    ) -> Result<R> {
        self.deferred.counts.moved(before.and_then(R::counted), row.counted());
        let Head { id, frontdoor, generation, .. } = row.head();
        let tagged = Tagged { id: &id, frontdoor, before: before.map(R::tags), tags: row.tags() };
        self.write_tags(R::TAGS, tagged).await?;
        let on = Execution { ends_with: EndsWith::Status(generation), ..Execution::of(R::TYPE, &id) };
        self.record(frontdoor, action, on).await?;
        Ok(row)
    }
}

/// The detail of a row `r`: its own, or where it has no reason, the one that [`Status::waiting`] gives.
///
/// [`Status::waiting`]: wicketgate_model::Status::waiting
pub(crate) const DETAIL_REASON: &str = "COALESCE(r.reason, CASE r.status \
     WHEN 'NEW' THEN 'Pending' WHEN 'DELETING' THEN 'Pending' WHEN 'DELETED' THEN 'Deleted' END)";
pub(crate) const DETAIL_MESSAGE: &str = concat!(
    "COALESCE(r.message, CASE WHEN r.reason IS NULL THEN CASE r.status WHEN 'NEW' THEN '",
    wicketgate_model::pending_change!(),
    "' WHEN 'DELETING' THEN '",
    wicketgate_model::pending_removal!(),
    "' WHEN 'DELETED' THEN '",
    wicketgate_model::deletion_complete!(),
    "' END END)"
);
pub(crate) const DETAIL_SINCE: &str =
    "COALESCE(r.detail_since, CASE WHEN r.status <> 'DEPLOYED' THEN r.status_since END)";

pub(crate) const HIDDEN: Hidden =
    Hidden { live: "r.status <> 'DELETED'", status: &STATUS, deleted_at: &DELETED_AT };

static STATUS: Column = Column::new(ColumnType::Text, "r.status");
static DELETED_AT: Column = Column::new(ColumnType::Time, "r.deleted_at").optional();

/// The columns of lists that tunnels and shares have in common, and more.
macro_rules! columns {
    ($($more:tt)*) => {
        $crate::list_column::columns! {
            ID = Text("r.id");
            NAME = Text("r.name");
            DESCRIPTION = Text("r.description").optional();
            FRONTDOOR = Text("r.frontdoor");
            STATUS = Text("r.status");
            DETAIL_REASON = Text($crate::provisioned::DETAIL_REASON).optional();
            DETAIL_MESSAGE = Text($crate::provisioned::DETAIL_MESSAGE).optional();
            DETAIL_SINCE = Time($crate::provisioned::DETAIL_SINCE).optional();
            ENABLED = Boolean("r.enabled");
            TAGS = Tags("r.tags");
            CREATED_AT = Time("r.created_at");
            UPDATED_AT = Time("r.updated_at");
            DELETED_AT = Time("r.deleted_at").optional();
            CREATED_BY = Text("r.created_by");
            DELETED_BY = Text("r.deleted_by").optional();
            $($more)*
        }
    };
}
pub(crate) use columns;
