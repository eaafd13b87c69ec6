//! Reads and writes of the reconciler: the rows that changed, and their statuses.

use crate::{
    EventKind, GatewayEpoch, Result, ShareRow, Store, TunnelRow,
    bulk::{list, parts, places},
    deferred::Deferred,
    event::NewEvent,
    field::{Argument, shown},
    row::rows,
    share,
    share_count::Counted,
    statement::bind,
    transaction::Transaction,
    tunnel,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use std::{
    collections::{HashMap, HashSet},
    fmt,
};
use wicketgate_model::{
    AgentDesired, AgentId, Detail, EnvironmentId, FrontdoorId, GatewayId, Generation, Problem, Reason,
    ShareId, Standing, Status, TunnelId,
};

/// A point in the sequence of writes. The default is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Revision(i64);

impl Revision {
    pub fn number(self) -> u64 {
        self.0.unsigned_abs()
    }

    /// The point with this number; `None`: there is none.
    pub fn of_number(number: u64) -> Option<Self> {
        i64::try_from(number).ok().map(Self)
    }
}

/// A row that was written after a revision, as it is now.
#[derive(Debug, Clone)]
pub enum Change {
    Tunnel(Box<TunnelRow>),
    Share(Box<ShareRow>),
    Agent(AgentId, AgentDesired),
    /// The gateway is to serve the tunnel and its shares no longer. They are not passed for it again.
    Withdrawn(TunnelId),
    /// Whether other gateways are to serve the tunnel and its shares, too.
    Places {
        tunnel: TunnelId,
        are_several: bool,
    },
    /// The share is another gateway's, as its tunnel was changed or has moved.
    Elsewhere(ShareId),
    /// Some rows could not be read: that a row is missing says nothing.
    Unreadable,
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

// In the order that an index has: in another one, SQLite would look at every row there is. $2 is a gateway.
const CHANGED_TUNNELS: &str = concat!(
    "SELECT ",
    tunnel::selected!(),
    " FROM ipsec_tunnel WHERE revision > $1 AND ($1 > 0 OR status <> 'DELETED') \
     AND EXISTS (SELECT 1 FROM endpoint_place c WHERE c.tunnel = ipsec_tunnel.id AND c.gateway = $2 \
     AND c.withdrawn_at IS NULL) ORDER BY revision"
);
const CHANGED_SHARES: &str = concat!(
    "SELECT ",
    share::selected!(),
    " FROM ipsec_share WHERE revision > $1 AND ($1 > 0 OR status <> 'DELETED') \
     AND EXISTS (SELECT 1 FROM endpoint_place c WHERE c.tunnel = ipsec_share.tunnel AND c.gateway = $2 \
     AND c.withdrawn_at IS NULL) ORDER BY revision"
);
// What is older than its place at the gateway. Statements of their own: with both conditions in one, SQLite would look at every row.
const PLACED_TUNNELS: &str = concat!(
    "SELECT ",
    tunnel::selected!(),
    " FROM ipsec_tunnel WHERE id IN (SELECT c.tunnel FROM endpoint_place c WHERE c.gateway = $2 AND c.revision > $1 \
     AND c.withdrawn_at IS NULL) AND revision <= $1 AND status <> 'DELETED'"
);
const PLACED_SHARES: &str = concat!(
    "SELECT ",
    share::selected!(),
    " FROM ipsec_share WHERE tunnel IN (SELECT c.tunnel FROM endpoint_place c WHERE c.gateway = $2 AND c.revision > $1 \
     AND c.withdrawn_at IS NULL) AND revision <= $1 AND status <> 'DELETED'"
);
const WITHDRAWN_TUNNELS: &str = "SELECT tunnel FROM endpoint_place \
    WHERE gateway = $2 AND revision > $1 AND withdrawn_at IS NOT NULL ORDER BY revision";
// Shares of these in any status: also one that is being deleted.
const WITHDRAWN_SHARES: &str = "SELECT s.id FROM endpoint_place c JOIN ipsec_share s ON s.tunnel = c.tunnel \
    WHERE c.gateway = $2 AND c.revision > $1 AND c.withdrawn_at IS NOT NULL AND s.status <> 'DELETED'";
const MOVED_SHARES: &str = "SELECT id FROM ipsec_share WHERE revision > $1 AND NOT EXISTS (SELECT 1 \
    FROM endpoint_place c WHERE c.tunnel = ipsec_share.tunnel AND c.gateway = $2 AND c.withdrawn_at IS NULL)";
const PLACES: &str = "SELECT c.tunnel, CASE WHEN EXISTS (SELECT 1 FROM endpoint_place o WHERE o.tunnel = c.tunnel \
    AND o.gateway <> c.gateway AND o.withdrawn_at IS NULL) THEN 1 ELSE 0 END FROM endpoint_place c \
    WHERE c.gateway = $2 AND c.revision > $1 AND c.withdrawn_at IS NULL";
const CHANGED_AGENTS: &str = "SELECT id, environment, public_key_sha256, barred_at FROM agent \
    WHERE revision > $1 AND public_key_sha256 IS NOT NULL ORDER BY revision";

/// Frontdoors whose tunnels and shares are not served. Usually none has any.
const UNSERVED: &str = "SELECT id FROM frontdoor f WHERE ipsec_shares_enabled = 0 AND deleted_at IS NULL \
    AND EXISTS (SELECT 1 FROM ipsec_tunnel t WHERE t.frontdoor = f.id AND t.status <> 'DELETED')";

impl Store {
    /// Passes all rows of a gateway that were written, or placed at it, after `since` to `take`, tunnels first, and returns the
    /// revision for the next call. The next call may pass a row again, but none is ever missed. `DELETED` rows and withdrawn places
    /// are passed only after the first call, so that the caller drops them. What is below a Frontdoor without IPsec shares is
    /// passed as disabled.
    pub async fn changes_of(
        &self,
        gateway: GatewayId,
        since: Revision,
        mut take: impl FnMut(Change) + Send,
    ) -> Result<Revision> {
        // Usually there are none.
        let newest = "SELECT value FROM revision";
        if self.find(newest, &[]).await? == Some((since.0,)) {
            return Ok(since);
        }
        // One snapshot: a share is never seen without its tunnel.
        let mut tx = self.database.long_snapshot().await?;
        // With one gateway, also of those that were removed, every row is its own.
        let (revision, gateways): (i64, u64) =
            tx.one("SELECT value, (SELECT COUNT(*) FROM gateway) FROM revision", &[]).await?;
        let are_several = gateways > 1;
        let unserved: HashSet<(FrontdoorId,)> = tx.all(UNSERVED, &[]).await?.into_iter().collect();
        let is_served = |frontdoor: FrontdoorId| !unserved.contains(&(frontdoor,));
        let mut are_all = true;
        // Before the rows: it says how their statuses are decided.
        if are_several {
            let places: Vec<(TunnelId, bool)> = tx.all(PLACES, &[&since.0, &gateway]).await?;
            for (tunnel, are_several) in places {
                take(Change::Places { tunnel, are_several });
            }
        }
        // A first read finds all of them by the first statement.
        let statements = if since == Revision::default() { 1 } else { 2 };
        for changed in &[CHANGED_TUNNELS, PLACED_TUNNELS][..statements] {
            are_all &= tx
                .each(changed, &[&since.0, &gateway], |mut row: TunnelRow| {
                    row.spec.enabled &= is_served(row.frontdoor);
                    take(Change::Tunnel(Box::new(row)));
                })
                .await?;
        }
        for changed in &[CHANGED_SHARES, PLACED_SHARES][..statements] {
            are_all &= tx
                .each(changed, &[&since.0, &gateway], |mut row: ShareRow| {
                    row.spec.enabled &= is_served(row.frontdoor);
                    take(Change::Share(Box::new(row)));
                })
                .await?;
        }
        if !are_all {
            take(Change::Unreadable);
        }
        if since > Revision::default() {
            left(&mut tx, since, gateway, are_several).await?.into_iter().for_each(&mut take);
        }
        let agents: Vec<(_, _, _, Option<Timestamp>)> = tx.all(CHANGED_AGENTS, &[&since.0]).await?;
        tx.commit().await?;
        for (id, environment, key_sha256, barred_at) in agents {
            let enrolled = AgentDesired::Enrolled { environment, key_sha256 };
            take(Change::Agent(id, if barred_at.is_some() { AgentDesired::Barred } else { enrolled }));
        }
        Ok(Revision(revision))
    }

    /// Writes statuses of rows that a gateway serves, all or none, and ends their executions. A row that has another generation or is `DELETED` is left
    /// unchanged. The desired state of gateways does not change: the rows get no new revision.
    pub async fn update_statuses(&self, epoch: &GatewayEpoch, updates: &[StatusUpdate]) -> Result<()> {
        if updates.is_empty() {
            return Ok(());
        }
        let updates = updates.to_vec();
        self.settle_under(epoch, move |write| async move { write.update_statuses(&updates).await }.boxed())
            .await
    }
}

/// What a gateway is to serve no longer, since other gateways do.
async fn left(
    tx: &mut Transaction,
    since: Revision,
    gateway: GatewayId,
    are_several: bool,
) -> Result<Vec<Change>> {
    let withdrawn: Vec<(TunnelId,)> = tx.all(WITHDRAWN_TUNNELS, &[&since.0, &gateway]).await?;
    let mut left: Vec<_> = withdrawn.into_iter().map(|(tunnel,)| Change::Withdrawn(tunnel)).collect();
    if are_several {
        for elsewhere in [WITHDRAWN_SHARES, MOVED_SHARES] {
            let shares: Vec<(ShareId,)> = tx.all(elsewhere, &[&since.0, &gateway]).await?;
            left.extend(shares.into_iter().map(|(share,)| Change::Elsewhere(share)));
        }
    }
    Ok(left)
}

impl Write {
    /// See [`Store::update_statuses`].
    pub(crate) async fn update_statuses(&mut self, updates: &[StatusUpdate]) -> Result<()> {
        let (tunnels, shares): (Vec<_>, Vec<_>) =
            updates.iter().partition(|s| matches!(s.resource, Resource::Tunnel(_)));
        for (table, updates) in [(&TUNNELS, tunnels), (&SHARES, shares)] {
            for part in parts(&updates) {
                let standing = self.applicable(table, part).await?;
                write_statuses(&mut self.tx, table, &standing, &mut self.deferred).await?;
            }
        }
        Ok(())
    }

    /// The updates that apply: their rows still have the same generation, nothing leaves `DELETED`, and only `DELETED`
    /// follows `DELETING`. Each comes with its row before it.
    async fn applicable<'a>(
        &mut self,
        table: &Table,
        part: &[&'a StatusUpdate],
    ) -> Result<Vec<(&'a StatusUpdate, Before)>> {
        let find = format!("{} WHERE id IN ({})", table.find, list(part.len()));
        let ids: Vec<_> = part.iter().map(|update| update.resource.to_string()).collect();
        let ids: Vec<_> = ids.iter().map(|id| id as &dyn Argument).collect();
        let rows: Vec<Before> = self.tx.all(self.locking(&find, table.name), &ids).await?;
        let mut found: HashMap<_, _> = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
        let held = part.iter().filter_map(|update| {
            let before = found.remove(&update.resource.to_string())?;
            let is_end = matches!(update.standing.status, Status::Deleting | Status::Deleted);
            let holds = before.generation == update.generation
                && before.status != Status::Deleted
                && (before.status != Status::Deleting || is_end);
            holds.then_some((*update, before))
        });
        Ok(held.collect())
    }
}

rows! {
    /// A row before its status is updated.
    #[derive(Clone)]
    pub(crate) struct Before {
        pub(crate) id: String,
        pub(crate) frontdoor: FrontdoorId,
        /// Of a share.
        pub(crate) environment: Option<EnvironmentId>,
        pub(crate) generation: Generation,
        pub(crate) status: Status,
        pub(crate) reason: Option<Reason>,
    }
}

impl Before {
    /// A changed message alone is no event.
    fn differs(&self, standing: &Standing) -> bool {
        // A waiting row has no reason in its columns; its event had one.
        let waiting = || self.status.waiting(Timestamp::UNIX_EPOCH).map(|d| d.problem.reason);
        let reason = standing.detail.as_ref().map(|d| d.problem.reason);
        self.status != standing.status || self.reason.or_else(waiting) != reason
    }

    /// Where the row is counted with a status.
    fn counted(&self, status: Status) -> Option<Counted> {
        let frontdoor = self.frontdoor;
        self.environment.map(|environment| Counted { frontdoor, environment, status })
    }
}

/// The table that updates of one kind are written to.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    kind: EventKind,
    /// The column with its tunnel's id.
    pub(crate) tunnel: &'static str,
    /// The one with its environment's, if it has one.
    pub(crate) environment: &'static str,
    /// Selects what a [`Before`] is read from.
    find: &'static str,
}

pub(crate) static TUNNELS: Table = Table {
    name: "ipsec_tunnel",
    kind: EventKind::Tunnel,
    tunnel: "id",
    environment: "NULL",
    find: "SELECT id, generation, frontdoor, NULL AS environment, status, reason FROM ipsec_tunnel",
};

pub(crate) static SHARES: Table = Table {
    name: "ipsec_share",
    kind: EventKind::Share,
    tunnel: "tunnel",
    environment: "environment",
    find: "SELECT id, generation, frontdoor, environment, status, reason FROM ipsec_share",
};

/// Writes updates that apply, and defers their events and counts.
pub(crate) async fn write_statuses(
    tx: &mut Transaction,
    table: &Table,
    held: &[(&StatusUpdate, Before)],
    deferred: &mut Deferred,
) -> Result<()> {
    for part in parts(held) {
        // `VALUES` calls its columns `column1`, `column2`, … in both databases.
        let update = format!(
            "UPDATE {} SET status = v.column2, status_since = v.column3, observed_generation = v.column4, \
             reason = v.column5, message = v.column6, detail_since = v.column7, deleted_at = v.column8 \
             FROM (VALUES {}) v WHERE id = v.column1",
            table.name,
            places(part.len(), 8)
        );
        let mut query = sqlx::query(AssertSqlSafe(update));
        for (StatusUpdate { standing, .. }, before) in part {
            let Standing { status, since, observed_generation, detail } = standing;
            let reason = detail.as_ref().map(|d| d.problem.reason);
            let message = detail.as_ref().map(|d| shown(&d.problem.message));
            let detail_since = detail.as_ref().map(|d| d.since);
            let deleted_at = (*status == Status::Deleted).then_some(*since);
            query = bind(query, &[&before.id, status, since, observed_generation])?;
            query = bind(query, &[&reason, &message, &detail_since, &deleted_at])?;
            if before.differs(standing) {
                deferred.events.push(NewEvent {
                    frontdoor: before.frontdoor,
                    at: detail_since.map_or(*since, |detail_since| detail_since.max(*since)),
                    kind: table.kind,
                    resource: before.id.clone(),
                    status: status.as_str(),
                    why: detail.as_ref().map(Into::into),
                });
            }
            deferred.counts.moved(before.counted(before.status), before.counted(*status));
        }
        tx.run(query).await?;
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
         status = CASE WHEN v.column4 IN ('DEPLOYED', 'DISABLED') OR (v.column4 = 'DELETED' AND action = 'DELETE') \
         THEN 'SUCCESS' ELSE 'FAILED' END, \
         message = CASE WHEN v.column4 = 'DELETED' AND action = 'DELETE' THEN NULL ELSE v.column5 END \
         FROM (VALUES {}) v WHERE resource = v.column1 AND generation <= v.column2 AND generation > 0 \
         AND execution.status = 'RUNNING'",
        places(part.len(), 5)
    );
    let mut query = sqlx::query(AssertSqlSafe(update));
    for StatusUpdate { resource, generation, standing } in part {
        let message = match standing.status {
            Status::Deployed | Status::Disabled => None,
            Status::Deleted => Some("deleted before it was deployed".to_owned()),
            _ => standing.detail.as_ref().map(|Detail { problem: Problem { reason, message }, .. }| {
                format!("{reason}: {}", shown(message))
            }),
        };
        let resource = resource.to_string();
        query = bind(query, &[&resource, generation, &standing.since, &standing.status, &message])?;
    }
    tx.run(query).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::Row as _;

    #[tokio::test]
    async fn reading_changes_does_not_scan_unchanged_rows() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::store::fresh(dir.path()).await;
        for (statement, index) in [
            (CHANGED_TUNNELS, "ipsec_tunnel_revision"),
            (CHANGED_SHARES, "ipsec_share_revision"),
            (CHANGED_AGENTS, "agent_revision"),
            (PLACED_TUNNELS, "endpoint_place_gateway"),
            (PLACED_SHARES, "endpoint_place_gateway"),
            (WITHDRAWN_TUNNELS, "endpoint_place_gateway"),
            (WITHDRAWN_SHARES, "endpoint_place_gateway"),
            (WITHDRAWN_SHARES, "ipsec_share_tunnel"),
            (MOVED_SHARES, "ipsec_share_revision"),
            (PLACES, "endpoint_place_gateway"),
        ] {
            let text = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
            let explained = sqlx::query(text).bind(1_i64).bind("gwy-00000000000000000000000000000000");
            let plan =
                explained.fetch_all(&mut *store.database.readers.acquire().await.unwrap()).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
            assert!(plan.iter().all(|step| !step.starts_with("SCAN")), "{statement}: {plan:?}");
            assert!(plan.iter().any(|step| step.contains(index)), "{statement}: {plan:?}");
        }
    }
}
