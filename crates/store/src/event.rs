//! Changes of status, in the order of their commits, which callers follow instead of polling.
//!
//! Invariants: an event is written in the transaction that changes the status, so that there is one for each change and
//! for no other. Its number is taken last in that transaction, from one row: on PostgreSQL that row's lock makes the order
//! of numbers the order of commits, and a reader that has seen event n has missed nothing before it.

use crate::{
    Result,
    bulk::{parts, places},
    event_retention::Written,
    field::{shown, text_fields},
    statement::bind,
    transaction::Transaction,
};
use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use wicketgate_model::{ConnectionError, Detail, FrontdoorId, Problem};

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
text_fields!(EventKind);

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
pub(crate) async fn insert(tx: &mut Transaction, events: &[NewEvent]) -> Result<Option<Written>> {
    let Some(count) = i64::try_from(events.len()).ok().filter(|count| *count > 0) else { return Ok(None) };
    let take = "UPDATE event_sequence SET newest = newest + $1 WHERE id = 1 RETURNING newest";
    let (newest,): (i64,) = tx.one(take, &[&count]).await?;
    let mut id = newest - count;
    for part in parts(events) {
        let insert = format!(
            "INSERT INTO event (id, frontdoor, at, kind, resource, status, reason, message) VALUES {}",
            places(part.len(), 8)
        );
        let mut query = sqlx::query(AssertSqlSafe(insert));
        for NewEvent { frontdoor, at, kind, resource, status, why } in part {
            id += 1;
            let (reason, message) =
                (why.as_ref().map(|why| why.reason), why.as_ref().map(|why| shown(&why.message)));
            query = bind(query, &[&id, frontdoor, at, kind, resource, status, &reason, &message])?;
        }
        tx.run(query).await?;
    }
    Ok(Some(Written { count, newest }))
}
