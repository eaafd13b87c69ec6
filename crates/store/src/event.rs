//! Changes of status, in the order of their commits, which callers follow instead of polling.
//!
//! Invariants: an event is written in the transaction that changes the status, so that there is one for each change and
//! for no other. Its number is taken last in that transaction, from one row: on PostgreSQL that row's lock makes the order
//! of numbers the order of commits, and a reader that has seen event n has missed nothing before it.

use crate::{
    Result,
    bulk::{parts, places},
    columns::{number, parsed, shown},
};
use jiff::Timestamp;
use sqlx::{AnyConnection, AssertSqlSafe, Row, any::AnyRow};
use wicketgate_model::{ConnectionError, Detail, FrontdoorId, Problem, Status};

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
