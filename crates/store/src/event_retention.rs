//! Which events are kept: those of a week, and of each Frontdoor the newest.
//!
//! Invariant: a flood of events of one Frontdoor deletes events of that Frontdoor only, and takes no more room than the
//! bound and a step. It is bounded as it is written, not an hour later.

use crate::{Result, transaction::Transaction};
use jiff::Timestamp;
use wicketgate_model::FrontdoorId;

/// Events of a Frontdoor that are kept: a day of a large site.
const MOST: i64 = 10_000;
/// Events, of whichever Frontdoors, after which the surplus is deleted.
const STEP: i64 = 1000;
/// How long an event is kept, in microseconds: a week. A reader that was away for longer reads everything again.
const KEPT: i64 = 7 * 24 * 3600 * 1_000_000;

/// Deletes what Frontdoors have too many of, each time that the numbers pass a step. `newest` events have been written, the last
/// `count` of them by this transaction.
pub(crate) async fn bound(tx: &mut Transaction, newest: i64, count: i64) -> Result<()> {
    if newest / STEP == (newest - count) / STEP {
        return Ok(());
    }
    // A Frontdoor that has more than at the last step has an event since then.
    let recent = "SELECT DISTINCT frontdoor FROM event WHERE id > $1";
    let recent: Vec<(FrontdoorId,)> = tx.all(recent, &[&(newest - count - STEP)]).await?;
    for (frontdoor,) in recent {
        let last = "SELECT id FROM event WHERE frontdoor = $1 ORDER BY id DESC LIMIT 1 OFFSET $2";
        let Some((last,)) = tx.find::<(i64,)>(last, &[&frontdoor, &MOST]).await? else { continue };
        // Twice what was added, so that a surplus of before is gone after some steps, and no write waits for all of it.
        let most = 2 * count.max(STEP);
        let first = "SELECT id FROM event WHERE frontdoor = $1 AND id <= $2 ORDER BY id LIMIT 1 OFFSET $3";
        let first: Option<(i64,)> = tx.find(first, &[&frontdoor, &last, &(most - 1)]).await?;
        let last = first.map_or(last, |(first,)| first);
        tx.execute("DELETE FROM event WHERE frontdoor = $1 AND id <= $2", &[&frontdoor, &last]).await?;
        let note = "INSERT INTO event_forgotten (frontdoor, newest) VALUES ($1, $2) \
                    ON CONFLICT (frontdoor) DO UPDATE SET newest = excluded.newest";
        tx.execute(note, &[&frontdoor, &last]).await?;
    }
    Ok(())
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
        let mut tx = store.database.begin().await.unwrap();
        let frontdoor = FrontdoorId::new(uuid::Uuid::nil());
        let add = "WITH RECURSIVE n(i) AS (SELECT $2 + 1 UNION ALL SELECT i + 1 FROM n WHERE i < $3) \
                   INSERT INTO event (id, frontdoor, at, kind, resource, status) \
                   SELECT i, $1, 0, 'ipsec-share', 'x', 'DEPLOYED' FROM n";
        let mut kept = Vec::new();
        for step in 15..22 {
            let from = if step == 15 { 0 } else { (step - 1) * STEP };
            tx.execute(add, &[&frontdoor, &from, &(step * STEP)]).await.unwrap();
            bound(&mut tx, step * STEP, STEP).await.unwrap();
            kept.push(tx.one::<(i64,)>("SELECT COUNT(*) FROM event", &[]).await.unwrap().0);
            let known: (i64, i64) =
                tx.one("SELECT f.newest, MIN(e.id) FROM event_forgotten f, event e", &[]).await.unwrap();
            assert_eq!(known.0 + 1, known.1, "readers know what is missing");
        }
        assert_eq!(kept, [13_000, 12_000, 11_000, MOST, MOST, MOST, MOST]);
        tx.rollback().await.unwrap();
    }
}
