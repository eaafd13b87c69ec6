//! What the reconciler reads and writes: the rows that changed, and how they stand.

use crate::{
    EventKind, Result, ShareRow, Store, TunnelRow,
    columns::{big, parsed, shown},
    event::{Before, NewEvent},
    share::select,
    transaction::Transaction,
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use sqlx::Row;
use std::fmt;
use wicketgate_model::{AgentId, Generation, ShareId, Standing, Status, TunnelId};

/// A point in the sequence of writes. The default is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Revision(i64);

/// The rows that changed after a revision. A row may be reported again by the next call, but none is ever missed.
#[derive(Debug, Clone)]
pub struct Changes {
    /// What to pass to the next call.
    pub revision: Revision,
    pub tunnels: Vec<TunnelRow>,
    pub shares: Vec<ShareRow>,
    pub barred: Vec<AgentId>,
    pub unbarred: Vec<AgentId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// How a row of a generation stands, as the status machine has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    pub resource: Resource,
    pub generation: Generation,
    pub standing: Standing,
}

impl Store {
    /// All rows that were written after `since`. From the beginning, those that are `DELETED` are left out; later
    /// they are there, so that the caller drops them.
    pub async fn changes(&self, since: Revision) -> Result<Changes> {
        // One snapshot: a share is never seen without its tunnel.
        let mut tx = self.snapshot().await?;
        let revision: i64 =
            sqlx::query("SELECT value FROM revision").fetch_one(&mut *tx).await?.try_get(0)?;
        // A row of the database takes several times what is read from it: at the start there may be very many.
        let tunnels: Vec<TunnelRow> = sqlx::query(
            "SELECT * FROM ipsec_tunnel WHERE revision > $1 AND ($1 > 0 OR status <> 'DELETED') ORDER BY id",
        )
        .bind(since.0)
        .fetch(&mut *tx)
        .map(|row| TunnelRow::read(&row?))
        .try_collect()
        .await?;
        let shares: Vec<ShareRow> =
            sqlx::query(select!("WHERE s.revision > $1 AND ($1 > 0 OR s.status <> 'DELETED') ORDER BY s.id"))
                .bind(since.0)
                .fetch(&mut *tx)
                .map(|row| ShareRow::read(&row?))
                .try_collect()
                .await?;
        let agents = sqlx::query(
            "SELECT id, barred_at FROM agent WHERE revision > $1 AND ($1 > 0 OR barred_at IS NOT NULL) ORDER BY id",
        )
        .bind(since.0)
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        let (mut barred, mut unbarred) = (Vec::new(), Vec::new());
        for row in &agents {
            let at: Option<i64> = row.try_get("barred_at")?;
            if at.is_some() { &mut barred } else { &mut unbarred }.push(parsed(row, "id")?);
        }
        Ok(Changes { revision: Revision(revision), tunnels, shares, barred, unbarred })
    }

    /// Writes how rows stand, all or none, and ends their executions. A row that has another generation by now, or
    /// is `DELETED`, is left alone. This is no change of what gateways should serve: it stamps no revision.
    pub async fn settle(&self, settlements: &[Settlement]) -> Result<()> {
        if settlements.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let mut events = Vec::new();
        for settlement in settlements {
            events.extend(settle_one(&mut tx, settlement).await?);
        }
        self.commit_telling(tx, events).await
    }
}

/// Nothing leaves `DELETED`, and nothing but `DELETED` follows `DELETING`.
macro_rules! update {
    ($table:literal) => {
        concat!(
            "UPDATE ",
            $table,
            " SET status = $1, status_since = $2, observed_generation = $3, reason = $4, message = $5, \
             detail_since = $6, deleted_at = $7 WHERE id = $8 AND generation = $9 AND status <> 'DELETED' \
             AND (status <> 'DELETING' OR $1 IN ('DELETING', 'DELETED'))"
        )
    };
}

/// Answers what there is to tell of it.
async fn settle_one(tx: &mut Transaction, settlement: &Settlement) -> Result<Option<NewEvent>> {
    let Settlement { resource, generation, standing } = settlement;
    let (id, kind, before, update) = match resource {
        Resource::Tunnel(id) => {
            let before = "SELECT frontdoor, status, reason FROM ipsec_tunnel WHERE id = $1";
            (id.to_string(), EventKind::Tunnel, before, update!("ipsec_tunnel"))
        }
        Resource::Share(id) => {
            let before = "SELECT frontdoor, status, reason FROM ipsec_share WHERE id = $1";
            (id.to_string(), EventKind::Share, before, update!("ipsec_share"))
        }
    };
    let before = sqlx::query(before).bind(id.clone()).fetch_optional(&mut **tx).await?;
    let Some(before) = before.as_ref().map(Before::read).transpose()? else { return Ok(None) };
    let since = standing.since.as_microsecond();
    let detail = standing.detail.as_ref();
    let done = sqlx::query(update)
        .bind(standing.status.as_str())
        .bind(since)
        .bind(standing.observed_generation.map(|g| big(g.get())))
        .bind(detail.map(|d| d.problem.reason.as_str()))
        .bind(detail.map(|d| shown(&d.problem.message)))
        .bind(detail.map(|d| d.since.as_microsecond()))
        .bind((standing.status == Status::Deleted).then_some(since))
        .bind(id.clone())
        .bind(big(generation.get()))
        .execute(&mut **tx)
        .await?;
    if done.rows_affected() == 0 {
        return Ok(None);
    }
    let event = before.differs(standing.status.as_str(), detail).then(|| NewEvent {
        frontdoor: before.frontdoor,
        at: detail.map_or(standing.since, |d| d.since.max(standing.since)),
        kind,
        resource: id.clone(),
        status: standing.status.as_str(),
        detail: standing.detail.clone(),
    });
    let end = match standing.status {
        Status::Deployed => {
            "UPDATE execution SET status = 'SUCCESS', message = $4, finished_at = $1 \
             WHERE resource = $2 AND status = 'RUNNING' AND generation <= $3"
        }
        // What was asked for before the deletion never came about.
        Status::Deleted => {
            "UPDATE execution SET status = CASE WHEN action = 'DELETE' THEN 'SUCCESS' ELSE 'FAILED' END, \
             message = CASE WHEN action = 'DELETE' THEN NULL ELSE $4 END, finished_at = $1 \
             WHERE resource = $2 AND status = 'RUNNING' AND generation <= $3"
        }
        Status::Error => {
            "UPDATE execution SET status = 'FAILED', message = $4, finished_at = $1 \
             WHERE resource = $2 AND status = 'RUNNING' AND generation <= $3"
        }
        Status::New | Status::Deleting => return Ok(event),
    };
    let message = match standing.status {
        Status::Deployed => None,
        Status::Deleted => Some("deleted before it was deployed".to_owned()),
        _ => detail.map(|d| format!("{}: {}", d.problem.reason.as_str(), shown(&d.problem.message))),
    };
    sqlx::query(end)
        .bind(since)
        .bind(id)
        .bind(big(generation.get()))
        .bind(message)
        .execute(&mut **tx)
        .await?;
    Ok(event)
}
