//! Changes of status, in the order of their commits, which callers follow instead of polling.
//!
//! Invariants: an event is written in the transaction that changes the status, so that there is one for each change and
//! for no other. Its number is taken last in that transaction, from one row: on PostgreSQL that row's lock makes the order
//! of numbers the order of commits, and a reader that has seen event n has missed nothing before it.

use crate::{
    Result, Store,
    bulk::{parts, places},
    columns::{big, number, parsed, shown, text, time},
};
use jiff::Timestamp;
use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};
use wicketgate_model::{ConnectionError, ConnectionFault, Detail, FrontdoorId, Problem, Reason, Status};

/// Events that are kept: a day of a large site.
pub(crate) const MOST: i64 = 100_000;
/// How long an event is kept, in microseconds: a week. A reader that was away for longer reads everything again.
pub(crate) const KEPT: i64 = 7 * 24 * 3600 * 1_000_000;

wicketgate_model::text_enum!(
    /// The kind of resource that changed.
    EventKind {
        Share = "ipsec-share",
        Tunnel = "ipsec-tunnel",
        Environment = "environment",
        /// A tunnel's connection.
        Connection = "connection",
    }
);

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Increases with every event of the database.
    pub id: u64,
    pub frontdoor: FrontdoorId,
    pub at: Timestamp,
    pub kind: EventKind,
    /// The id of the share, tunnel or environment.
    pub resource: String,
    pub status: String,
    /// Of [`Reason`], or of a connection's [`ConnectionFault`].
    pub reason: Option<&'static str>,
    pub message: Option<String>,
}

/// The state of the sequence of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventSpan {
    /// The newest event; 0 before the first.
    pub newest: u64,
    /// The newest event that was deleted.
    pub forgotten: u64,
}

/// An event to be written at the end of its transaction.
#[derive(Debug)]
pub(crate) struct NewEvent {
    pub(crate) frontdoor: FrontdoorId,
    pub(crate) at: Timestamp,
    pub(crate) kind: EventKind,
    pub(crate) resource: String,
    pub(crate) status: &'static str,
    pub(crate) why: Option<Why>,
}

/// A reason of a closed set, and its message.
#[derive(Debug)]
pub(crate) struct Why {
    reason: &'static str,
    message: String,
}

impl From<&Detail> for Why {
    fn from(detail: &Detail) -> Self {
        let Problem { reason, message } = &detail.problem;
        Self { reason: reason.as_str(), message: message.clone() }
    }
}

impl From<&ConnectionError> for Why {
    fn from(error: &ConnectionError) -> Self {
        Self { reason: error.reason.as_str(), message: error.to_string() }
    }
}

/// A reason by its name, of either set.
fn reason(name: &str) -> Option<&'static str> {
    Reason::NAMES.iter().chain(ConnectionFault::NAMES).find(|known| **known == name).copied()
}

impl EventRow {
    fn read(row: &AnyRow) -> Result<Self> {
        let why: Option<String> = row.try_get("reason")?;
        Ok(Self {
            id: number(row, "id")?,
            frontdoor: parsed(row, "frontdoor")?,
            at: time(row, "at")?,
            kind: parsed(row, "kind")?,
            resource: text(row, "resource")?,
            status: text(row, "status")?,
            reason: why.as_deref().and_then(reason),
            message: row.try_get("message")?,
        })
    }
}

/// Writes the events of a transaction, just before its commit.
pub(crate) async fn insert(db: &mut AnyConnection, events: &[NewEvent]) -> Result<()> {
    let Some(count) = i64::try_from(events.len()).ok().filter(|count| *count > 0) else { return Ok(()) };
    let row = sqlx::query("UPDATE event_sequence SET newest = newest + $1 WHERE id = 1 RETURNING newest")
        .bind(count)
        .fetch_one(&mut *db)
        .await?;
    let mut id = number::<i64>(&row, "newest")? - count;
    for part in parts(events) {
        let insert = format!(
            "INSERT INTO event (id, frontdoor, at, kind, resource, status, reason, message) VALUES {}",
            places(part.len(), 8)
        );
        let mut query = sqlx::query(AssertSqlSafe(insert));
        for event in part {
            id += 1;
            query = query
                .bind(id)
                .bind(event.frontdoor.to_string())
                .bind(event.at.as_microsecond())
                .bind(event.kind.as_str())
                .bind(event.resource.clone())
                .bind(event.status)
                .bind(event.why.as_ref().map(|why| why.reason))
                .bind(event.why.as_ref().map(|why| shown(&why.message)));
        }
        query.execute(&mut *db).await?;
    }
    Ok(())
}

/// The status of a tunnel or a share before a change.
pub(crate) struct Before {
    pub(crate) frontdoor: FrontdoorId,
    pub(crate) status: Status,
    reason: Option<String>,
}

impl Before {
    pub(crate) fn read(row: &AnyRow) -> Result<Self> {
        let reason: Option<String> = row.try_get("reason")?;
        let status = parsed(row, "status")?;
        // A waiting row has no reason in its columns; its event had one.
        let waiting = || Detail::waiting(status, Timestamp::UNIX_EPOCH).map(|d| d.problem.reason.as_str());
        Ok(Self {
            frontdoor: parsed(row, "frontdoor")?,
            reason: reason.or_else(|| waiting().map(str::to_owned)),
            status,
        })
    }

    /// A changed message alone is no event.
    pub(crate) fn differs(&self, status: Status, detail: Option<&Detail>) -> bool {
        self.status != status || self.reason.as_deref() != detail.map(|d| d.problem.reason.as_str())
    }
}

impl Store {
    /// Events after `after`, oldest first; of one Frontdoor or of all.
    pub async fn events(
        &self,
        frontdoor: Option<FrontdoorId>,
        after: u64,
        most: u32,
    ) -> Result<Vec<EventRow>> {
        let query = match frontdoor {
            Some(_) => "SELECT * FROM event WHERE id > $1 AND frontdoor = $3 ORDER BY id LIMIT $2",
            None => "SELECT * FROM event WHERE id > $1 ORDER BY id LIMIT $2",
        };
        let mut query = sqlx::query(query).bind(big(after)).bind(i64::from(most));
        if let Some(frontdoor) = frontdoor {
            query = query.bind(frontdoor.to_string());
        }
        let rows = query.fetch_all(&self.readers).await?;
        rows.iter().map(EventRow::read).collect()
    }

    pub async fn event_span(&self) -> Result<EventSpan> {
        let row =
            sqlx::query("SELECT newest, forgotten FROM event_sequence").fetch_one(&self.readers).await?;
        Ok(EventSpan { newest: number(&row, "newest")?, forgotten: number(&row, "forgotten")? })
    }

    /// Waits until this process has written events since the last call; other processes may have written more.
    pub async fn events_written(&self) {
        self.events_committed.notified().await;
    }
}

/// Deletes events that are too many or too old.
pub(crate) async fn prune(db: &mut AnyConnection, now: Timestamp) -> Result<()> {
    sqlx::query(
        "UPDATE event_sequence SET forgotten = COALESCE((SELECT MAX(id) FROM event \
         WHERE at < $1 OR id <= event_sequence.newest - $2), forgotten)",
    )
    .bind(now.as_microsecond() - KEPT)
    .bind(MOST)
    .execute(&mut *db)
    .await?;
    sqlx::query("DELETE FROM event WHERE id <= (SELECT forgotten FROM event_sequence)")
        .execute(&mut *db)
        .await?;
    Ok(())
}
