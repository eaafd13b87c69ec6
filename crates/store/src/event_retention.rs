//! Which events are kept: those of a week, and of each Frontdoor the newest.
//!
//! Invariant: a flood of events of one Frontdoor deletes events of that Frontdoor only, and takes no more room than the
//! bound, two steps, and what one transaction writes, unless the database is too slow to delete it. It is bounded just after it is
//! written, not an hour later.

use crate::{
    Result, StoreError,
    bulk::{parts, places},
    database::Database,
    statement::bind,
    transaction::Transaction,
};
use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use std::time::Duration;
use tokio::time::timeout;
use tracing::warn;
use wicketgate_model::FrontdoorId;

/// Events of a Frontdoor that are kept: a day of a large site.
const MOST: i64 = 10_000;
/// Events, of whichever Frontdoors, after which the surplus is deleted.
const STEP: i64 = 1000;
/// How long an event is kept, in microseconds: a week. A reader that was away for longer reads everything again.
const KEPT: i64 = 7 * 24 * 3600 * 1_000_000;
/// For a step. Other writes wait meanwhile.
const BOUND: Duration = Duration::from_secs(1);

/// The Frontdoors with more than `$2` events among those that have one after `$1`, each with the newest of its `$3` oldest surplus
/// events: a Frontdoor that has more than at the last step has an event since then.
const SURPLUS: &str = "SELECT o.frontdoor, COALESCE((SELECT e.id FROM event e WHERE e.frontdoor = o.frontdoor AND e.id <= o.last \
    ORDER BY e.id LIMIT 1 OFFSET $3), o.last) AS last FROM (SELECT r.frontdoor, \
    (SELECT e.id FROM event e WHERE e.frontdoor = r.frontdoor ORDER BY e.id DESC LIMIT 1 OFFSET $2) AS last \
    FROM (SELECT DISTINCT frontdoor FROM event WHERE id > $1) r) o WHERE o.last IS NOT NULL ORDER BY o.frontdoor";

/// Events that a transaction has written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) count: i64,
    /// The number of the last one.
    pub(crate) newest: i64,
}

/// Deletes what Frontdoors have too many of, each time that the numbers pass a step: after the commit of the events, so that their
/// writers do not wait for it and none of them is lost with it. A failure is logged, and what is too much is deleted after a later step.
pub(crate) async fn bound(database: &Database, written: Written) {
    if written.newest / STEP == (written.newest - written.count) / STEP {
        return;
    }
    if let Err(error) =
        timeout(BOUND, delete_surplus(database, written)).await.unwrap_or(Err(StoreError::RolledBack))
    {
        warn!(%error, "cannot delete the oldest events of Frontdoors that have too many; the next events try again");
    }
}

/// The number of statements does not depend on that of Frontdoors, but in parts of those that have too many.
async fn delete_surplus(database: &Database, Written { count, newest }: Written) -> Result<()> {
    let mut tx = database.begin_in_turn().await?;
    // Twice what was added, so that a surplus of before is gone after some steps, and no write waits for all of it.
    let most = 2 * count.max(STEP);
    let surplus: Vec<(FrontdoorId, i64)> =
        tx.all(SURPLUS, &[&(newest - count - STEP), &MOST, &(most - 1)]).await?;
    for part in parts(&surplus) {
        let rows = places(part.len(), 2);
        // `VALUES` calls its columns `column1` and `column2` in both databases.
        let delete = format!(
            "DELETE FROM event WHERE id IN (SELECT e.id FROM (VALUES {rows}) v \
             JOIN event e ON e.frontdoor = v.column1 AND e.id <= v.column2)"
        );
        let note = format!(
            "INSERT INTO event_forgotten (frontdoor, newest) VALUES {rows} \
             ON CONFLICT (frontdoor) DO UPDATE SET newest = excluded.newest"
        );
        for statement in [delete, note] {
            let mut query = sqlx::query(AssertSqlSafe(statement));
            for (frontdoor, last) in part {
                query = bind(query, &[frontdoor, last])?;
            }
            tx.run(query).await?;
        }
    }
    tx.commit().await
}

/// Events that are too old are not there any more: readers are told so, and they are deleted in steps.
pub(crate) async fn forget(tx: &mut Transaction, now: Timestamp) -> Result<()> {
    let forget = "UPDATE event_sequence SET forgotten = (SELECT MAX(id) FROM event WHERE at < $1) \
                  WHERE forgotten < (SELECT MAX(id) FROM event WHERE at < $1)";
    tx.execute(forget, &[&(now.as_microsecond() - KEPT)]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_surplus_of_before_is_deleted_in_steps() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::store::fresh(dir.path()).await;
        let frontdoor = FrontdoorId::new(uuid::Uuid::nil());
        let add = "WITH RECURSIVE n(i) AS (SELECT $2 + 1 UNION ALL SELECT i + 1 FROM n WHERE i < $3) \
                   INSERT INTO event (id, frontdoor, at, kind, resource, status) \
                   SELECT i, $1, 0, 'ipsec-share', 'x', 'DEPLOYED' FROM n";
        let mut kept = Vec::new();
        for step in 15..22 {
            let from = if step == 15 { 0 } else { (step - 1) * STEP };
            let mut tx = store.database.begin().await.unwrap();
            tx.execute(add, &[&frontdoor, &from, &(step * STEP)]).await.unwrap();
            tx.commit().await.unwrap();
            bound(&store.database, Written { count: STEP, newest: step * STEP }).await;
            let mut tx = store.database.begin().await.unwrap();
            kept.push(tx.one::<(i64,)>("SELECT COUNT(*) FROM event", &[]).await.unwrap().0);
            let known: (i64, i64) =
                tx.one("SELECT f.newest, MIN(e.id) FROM event_forgotten f, event e", &[]).await.unwrap();
            assert_eq!(known.0 + 1, known.1, "readers know what is missing");
            tx.rollback().await.unwrap();
        }
        assert_eq!(kept, [13_000, 12_000, 11_000, MOST, MOST, MOST, MOST]);
    }
}
