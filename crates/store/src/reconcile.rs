//! Reads and writes of the reconciler: the rows that changed, and their statuses.

use crate::{
    EventKind, Result, ShareRow, Store, TunnelRow,
    bulk::{list, parts, places},
    columns::{big, generation, parsed, shown, text},
    deferred::Deferred,
    event::{Before, NewEvent},
    share,
    share_count::Counted,
    transaction::Transaction,
    tunnel,
};
use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Row};
use std::{collections::HashMap, fmt};
use wicketgate_model::{AgentId, Generation, ShareId, Standing, Status, TunnelId};

/// A point in the sequence of writes. The default is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Revision(i64);

/// A row that was written after a revision, as it is now.
#[derive(Debug, Clone)]
pub enum Change {
    Tunnel(Box<TunnelRow>),
    Share(Box<ShareRow>),
    Barred(AgentId),
    Unbarred(AgentId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    Tunnel(TunnelId),
    Share(ShareId),
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tunnel(id) => id.fmt(f),
            Self::Share(id) => id.fmt(f),
        }
    }
}

/// The status of a row at a generation, as the status machine decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusUpdate {
    pub resource: Resource,
    pub generation: Generation,
    pub standing: Standing,
}

// In the order that an index has: in another one, SQLite would look at every row there is.
const CHANGED_TUNNELS: &str =
    tunnel::select!("WHERE t.revision > $1 AND ($1 > 0 OR t.status <> 'DELETED') ORDER BY t.revision");
const CHANGED_SHARES: &str =
    share::select!("WHERE s.revision > $1 AND ($1 > 0 OR s.status <> 'DELETED') ORDER BY s.revision");
const CHANGED_AGENTS: &str = "SELECT id, barred_at FROM agent WHERE revision > $1 \
    AND ($1 > 0 OR barred_at IS NOT NULL) ORDER BY revision";

impl Store {
    /// Passes all rows that were written after `since` to `take`, tunnels first, and returns the revision for the next
    /// call. The next call may pass a row again, but none is ever missed. `DELETED` rows are passed only after the first
    /// call, so that the caller drops them.
    pub async fn changes(&self, since: Revision, mut take: impl FnMut(Change) + Send) -> Result<Revision> {
        // Usually there are none.
        let newest = "SELECT value FROM revision";
        let seen: i64 = sqlx::query(newest).fetch_one(&self.database.readers).await?.try_get(0)?;
        if seen == since.0 {
            return Ok(since);
        }
        // One snapshot: a share is never seen without its tunnel.
        let mut tx = self.database.snapshot().await?;
        let revision: i64 = sqlx::query(newest).fetch_one(&mut *tx).await?.try_get(0)?;
        // Streamed: at the start there may be very many rows, and a row takes several times the memory of its result.
        let mut tunnels = sqlx::query(CHANGED_TUNNELS).bind(since.0).fetch(&mut *tx);
        while let Some(row) = tunnels.try_next().await? {
            take(Change::Tunnel(Box::new(TunnelRow::read(&row)?)));
        }
        drop(tunnels);
        let mut shares = sqlx::query(CHANGED_SHARES).bind(since.0).fetch(&mut *tx);
        while let Some(row) = shares.try_next().await? {
            take(Change::Share(Box::new(ShareRow::read(&row)?)));
        }
        drop(shares);
        let agents = sqlx::query(CHANGED_AGENTS).bind(since.0).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        for row in &agents {
            let (id, at): (_, Option<i64>) = (parsed(row, "id")?, row.try_get("barred_at")?);
            take(if at.is_some() { Change::Barred(id) } else { Change::Unbarred(id) });
        }
        Ok(Revision(revision))
    }

    /// Writes statuses, all or none, and ends their executions. A row that has another generation or is `DELETED` is left
    /// unchanged. The desired state of gateways does not change: the rows get no new revision.
    pub async fn update_statuses(&self, updates: &[StatusUpdate]) -> Result<()> {
        if updates.is_empty() {
            return Ok(());
        }
        let mut tx = self.database.begin().await?;
        let mut deferred = Deferred::default();
        let (tunnels, shares): (Vec<_>, Vec<_>) =
            updates.iter().partition(|s| matches!(s.resource, Resource::Tunnel(_)));
        for (table, mut updates) in [(&TUNNELS, tunnels), (&SHARES, shares)] {
            // All transactions lock rows in this order.
            updates.sort_unstable_by_key(|s| s.resource);
            for part in parts(&updates) {
                let standing = self.lock(&mut tx, table, part).await?;
                write_statuses(&mut tx, table, &standing, &mut deferred).await?;
            }
        }
        self.commit_with(tx, deferred).await
    }

    /// The updates that apply: their rows still have the same generation, nothing leaves `DELETED`, and only `DELETED`
    /// follows `DELETING`. Each comes with the row's status before it.
    async fn lock<'a>(
        &self,
        tx: &mut Transaction,
        table: &Table,
        part: &[&'a StatusUpdate],
    ) -> Result<Vec<(&'a StatusUpdate, Before, Option<Counted>)>> {
        let find = format!("{}{}) ORDER BY id", table.find, list(part.len()));
        let mut query = sqlx::query(self.database.locking(&find, table.name));
        for update in part {
            query = query.bind(update.resource.to_string());
        }
        let rows = query.fetch_all(&mut **tx).await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            let counted = table.is_counted.then(|| Counted::read(row)).transpose()?;
            found.insert(text(row, "id")?, (generation(row)?, Before::read(row)?, counted));
        }
        let held = part.iter().filter_map(|update| {
            let (generation, before, counted) = found.remove(&update.resource.to_string())?;
            let is_end = matches!(update.standing.status, Status::Deleting | Status::Deleted);
            let holds = generation == update.generation
                && before.status != Status::Deleted
                && (before.status != Status::Deleting || is_end);
            holds.then_some((*update, before, counted))
        });
        Ok(held.collect())
    }
}

/// The table that updates of one kind are written to.
struct Table {
    name: &'static str,
    kind: EventKind,
    /// Ids and a parenthesis follow.
    find: &'static str,
    is_counted: bool,
    update: &'static str,
}

/// `VALUES` calls its columns `column1`, `column2`, … in both databases.
macro_rules! update {
    ($table:literal) => {
        concat!(
            "UPDATE ",
            $table,
            " SET status = v.column2, status_since = v.column3, observed_generation = v.column4, \
             reason = v.column5, message = v.column6, detail_since = v.column7, deleted_at = v.column8 FROM (VALUES "
        )
    };
}

static TUNNELS: Table = Table {
    name: "ipsec_tunnel",
    kind: EventKind::Tunnel,
    find: "SELECT id, generation, frontdoor, status, reason FROM ipsec_tunnel WHERE id IN (",
    is_counted: false,
    update: update!("ipsec_tunnel"),
};

static SHARES: Table = Table {
    name: "ipsec_share",
    kind: EventKind::Share,
    find: "SELECT id, generation, frontdoor, environment, status, reason FROM ipsec_share WHERE id IN (",
    is_counted: true,
    update: update!("ipsec_share"),
};

/// Writes updates of locked rows, and defers their events and counts.
async fn write_statuses(
    tx: &mut Transaction,
    table: &Table,
    held: &[(&StatusUpdate, Before, Option<Counted>)],
    deferred: &mut Deferred,
) -> Result<()> {
    for part in parts(held) {
        let update = format!("{}{}) v WHERE id = v.column1", table.update, places(part.len(), 8));
        let mut query = sqlx::query(AssertSqlSafe(update));
        for (StatusUpdate { resource, standing, .. }, before, counted) in part {
            let (id, since) = (resource.to_string(), standing.since.as_microsecond());
            let detail = standing.detail.as_ref();
            query = query
                .bind(id.clone())
                .bind(standing.status.as_str())
                .bind(since)
                .bind(standing.observed_generation.map(|g| big(g.get())))
                .bind(detail.map(|d| d.problem.reason.as_str()))
                .bind(detail.map(|d| shown(&d.problem.message)))
                .bind(detail.map(|d| d.since.as_microsecond()))
                .bind((standing.status == Status::Deleted).then_some(since));
            if before.differs(standing.status, detail) {
                deferred.events.push(NewEvent {
                    frontdoor: before.frontdoor,
                    at: detail.map_or(standing.since, |d| d.since.max(standing.since)),
                    kind: table.kind,
                    resource: id,
                    status: standing.status.as_str(),
                    why: standing.detail.as_ref().map(Into::into),
                });
            }
            if let Some(counted) = counted {
                deferred.counts.remove(*counted);
                deferred.counts.add(Counted { status: standing.status, ..*counted });
            }
        }
        query.execute(&mut **tx).await?;
    }
    let ended = held.iter().map(|(update, ..)| *update);
    let ended: Vec<_> =
        ended.filter(|s| !matches!(s.standing.status, Status::New | Status::Deleting)).collect();
    for part in parts(&ended) {
        end_executions(tx, part).await?;
    }
    Ok(())
}

/// Ends the executions of these rows. What was requested before a deletion has failed.
async fn end_executions(tx: &mut Transaction, part: &[&StatusUpdate]) -> Result<()> {
    let update = format!(
        "UPDATE execution SET finished_at = v.column3, \
         status = CASE WHEN v.column4 = 'DEPLOYED' OR (v.column4 = 'DELETED' AND action = 'DELETE') \
         THEN 'SUCCESS' ELSE 'FAILED' END, \
         message = CASE WHEN v.column4 = 'DELETED' AND action = 'DELETE' THEN NULL ELSE v.column5 END \
         FROM (VALUES {}) v WHERE resource = v.column1 AND generation <= v.column2 \
         AND execution.status = 'RUNNING'",
        places(part.len(), 5)
    );
    let mut query = sqlx::query(AssertSqlSafe(update));
    for StatusUpdate { resource, generation, standing } in part {
        let detail = standing.detail.as_ref();
        query = query
            .bind(resource.to_string())
            .bind(big(generation.get()))
            .bind(standing.since.as_microsecond())
            .bind(standing.status.as_str())
            .bind(match standing.status {
                Status::Deployed => None,
                Status::Deleted => Some("deleted before it was deployed".to_owned()),
                _ => detail.map(|d| format!("{}: {}", d.problem.reason.as_str(), shown(&d.problem.message))),
            });
    }
    query.execute(&mut **tx).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reading_changes_does_not_scan_unchanged_rows() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("wicketgate.db").to_str().unwrap()).await.unwrap();
        for statement in [CHANGED_TUNNELS, CHANGED_SHARES, CHANGED_AGENTS] {
            let explained = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"))).bind(1_i64);
            let plan = explained.fetch_all(&store.database.readers).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
            let found = plan.iter().all(|step| !step.starts_with("SCAN"));
            assert!(found && plan[0].contains("_revision"), "{plan:?}");
        }
    }
}
