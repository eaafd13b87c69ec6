//! Reading events, and deleting old ones.

use crate::{
    EventKind, Result, Store,
    columns::{big, number, parsed, text, time},
};
use jiff::Timestamp;
use sqlx::{AnyConnection, Row, any::AnyRow};
use wicketgate_model::{ConnectionFault, FrontdoorId, Reason};

/// Events that are kept: a day of a large site.
pub(crate) const MOST: i64 = 100_000;
/// How long an event is kept, in microseconds: a week. A reader that was away for longer reads everything again.
pub(crate) const KEPT: i64 = 7 * 24 * 3600 * 1_000_000;

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
        let rows = query.fetch_all(&self.database.readers).await?;
        rows.iter().map(EventRow::read).collect()
    }

    pub async fn event_span(&self) -> Result<EventSpan> {
        let row = sqlx::query("SELECT newest, forgotten FROM event_sequence")
            .fetch_one(&self.database.readers)
            .await?;
        Ok(EventSpan { newest: number(&row, "newest")?, forgotten: number(&row, "forgotten")? })
    }

    /// Waits until this process has written events since the last call; other processes may have written more.
    pub async fn events_written(&self) {
        self.database.events_committed.notified().await;
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
