//! Brings tunnels to the gateways at which they are to be: after a gateway has joined, drains or was removed, and after a tunnel has
//! become redundant or ceased to be. [`placement_step`] has the rule.
//!
//! Invariant: each step is a transaction of its own, which decides by what it reads itself. It gives all places of the tunnel a new
//! revision, so that each of their gateways is told, and the tunnel no new generation.

use crate::{Result, Store, WriteContext, row::rows, write::Write};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;
use wicketgate_model::{
    ConnectionState, EspMode, GatewayId, GatewayLoad, Generation, LocationId, PlacedEndpoint, PlacementStep,
    Reason, TunnelId, placement_step,
};

/// Steps in one call: each is a transaction of some milliseconds, and callers' writes come between.
const STEPS: usize = 100;

rows! {
    /// A place of a tunnel that may have to move.
    struct PlacedRow {
        tunnel: TunnelId,
        gateway: GatewayId,
        location: LocationId,
        redundant: bool,
        generation: Generation,
        ready: Option<Generation>,
        problem: Option<Reason>,
        state: Option<ConnectionState>,
        esp: Option<EspMode>,
    }

    /// A gateway of a location.
    struct LocatedLoad {
        id: GatewayId,
        location: Option<LocationId>,
        max_tunnels: Option<u32>,
        draining: bool,
        tunnels: u64,
    }
}

/// The condition of the tunnels follows.
const SELECT: &str = "SELECT p.tunnel, p.gateway, t.location, t.redundant, t.generation, s.ready, s.problem, e.state, g.esp \
    FROM endpoint_place p JOIN ipsec_tunnel t ON t.id = p.tunnel JOIN gateway g ON g.id = p.gateway \
    LEFT JOIN endpoint_state s ON s.resource = p.tunnel AND s.gateway = p.gateway \
    LEFT JOIN tunnel_endpoint e ON e.tunnel = p.tunnel AND e.gateway = p.gateway \
    WHERE p.withdrawn_at IS NULL AND t.status NOT IN ('DELETING', 'DELETED') AND ";
const ORDER: &str = " ORDER BY p.tunnel, p.ordinal";
/// At a gateway that is left, with fewer or more places than wanted, or with another place than its first. Each part has an index; CROSS
/// JOIN has SQLite begin with the gateways.
const UNSETTLED: &str = "p.tunnel IN (\
    SELECT d.tunnel FROM gateway x CROSS JOIN endpoint_place d \
    WHERE d.gateway = x.id AND (x.draining = 1 OR x.deleted_at IS NOT NULL) AND d.withdrawn_at IS NULL \
    UNION SELECT r.id FROM ipsec_tunnel r WHERE r.redundant = 1 AND (SELECT COUNT(*) FROM endpoint_place c \
    WHERE c.tunnel = r.id AND c.withdrawn_at IS NULL) <> 2 \
    UNION SELECT f.tunnel FROM endpoint_place f JOIN ipsec_tunnel h ON h.id = f.tunnel \
    WHERE f.ordinal > 1 AND f.withdrawn_at IS NULL AND h.redundant = 0)";
const LOADS: &str = "SELECT g.id, g.location, g.max_tunnels, g.draining, (SELECT COUNT(*) FROM endpoint_place p \
    JOIN ipsec_tunnel t ON t.id = p.tunnel WHERE p.gateway = g.id AND p.withdrawn_at IS NULL AND t.status <> 'DELETED') \
    AS tunnels FROM gateway g WHERE g.deleted_at IS NULL ORDER BY g.id";
/// A database with one gateway has nothing to repair.
const GATEWAYS: &str = "SELECT COUNT(*) FROM gateway WHERE deleted_at IS NULL";

type Loads = HashMap<LocationId, Vec<GatewayLoad>>;

impl Store {
    /// Takes the next step of each tunnel that has to be at other gateways, some at most. Returns how many were taken; to be called
    /// periodically, and again at once if there were any.
    pub async fn repair_places(&self, now: Timestamp) -> Result<usize> {
        let (gateways,): (u64,) = self.find(GATEWAYS, &[]).await?.unwrap_or_default();
        if gateways < 2 {
            return Ok(0);
        }
        let select = AssertSqlSafe(format!("{SELECT}{UNSETTLED}{ORDER}"));
        let rows: Vec<PlacedRow> = self.all(select, &[]).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let loads = by_location(self.all(LOADS, &[]).await?);
        let mut tunnels: BTreeMap<TunnelId, Vec<PlacedRow>> = BTreeMap::new();
        for row in rows {
            tunnels.entry(row.tunnel).or_default().push(row);
        }
        let due = tunnels.into_iter().filter(|(_, rows)| step_of(rows, &loads).is_some());
        let mut steps = 0;
        for (tunnel, _) in due.take(STEPS) {
            let context = WriteContext::new("server", now, Uuid::nil);
            let taken = self.write(&context, move |write| write.take_step(tunnel).boxed()).await?;
            steps += usize::from(taken);
        }
        Ok(steps)
    }
}

impl Write {
    /// Takes the next step of a tunnel, if there still is one.
    async fn take_step(&mut self, tunnel: TunnelId) -> Result<bool> {
        let select = AssertSqlSafe(format!("{SELECT}p.tunnel = $1{ORDER}"));
        let rows: Vec<PlacedRow> = self.tx.all(select, &[&tunnel]).await?;
        let loads = by_location(self.tx.all(LOADS, &[]).await?);
        let Some(step) = step_of(&rows, &loads) else { return Ok(false) };
        match step {
            PlacementStep::Add(gateway) => self.add_place(tunnel, gateway).await?,
            PlacementStep::Withdraw(gateway) => self.withdraw_place(tunnel, gateway, rows.len()).await?,
        }
        let revise = "UPDATE endpoint_place SET revision = $1 WHERE tunnel = $2 AND withdrawn_at IS NULL";
        self.tx.execute(revise, &[&self.revision, &tunnel]).await?;
        Ok(true)
    }

    async fn add_place(&mut self, tunnel: TunnelId, gateway: GatewayId) -> Result<()> {
        let insert = "INSERT INTO endpoint_place (tunnel, gateway, ordinal, placed_at, revision) \
                      SELECT $1, $2, COALESCE(MAX(ordinal), 0) + 1, $3, $4 FROM endpoint_place \
                      WHERE tunnel = $1 AND withdrawn_at IS NULL \
                      ON CONFLICT (tunnel, gateway) DO UPDATE SET ordinal = excluded.ordinal, \
                      placed_at = excluded.placed_at, withdrawn_at = NULL, revision = excluded.revision";
        let at = self.context.at;
        self.tx.execute(insert, &[&tunnel, &gateway, &at, &self.revision]).await.map(drop)
    }

    /// `places` is how many there are with it. What is reported of a tunnel with one place is not kept.
    async fn withdraw_place(&mut self, tunnel: TunnelId, gateway: GatewayId, places: usize) -> Result<()> {
        let withdraw =
            "UPDATE endpoint_place SET withdrawn_at = $1, revision = $2 WHERE tunnel = $3 AND gateway = $4";
        let at = self.context.at;
        self.tx.execute(withdraw, &[&at, &self.revision, &tunnel, &gateway]).await?;
        let is_last = places <= 2;
        let forget = "DELETE FROM endpoint_state WHERE tunnel = $1 AND (gateway = $2 OR $3 = 1)";
        self.tx.execute(forget, &[&tunnel, &gateway, &is_last]).await.map(drop)
    }
}

fn by_location(rows: Vec<LocatedLoad>) -> Loads {
    let mut loads = Loads::new();
    for LocatedLoad { id, location, max_tunnels, draining, tunnels } in rows {
        let Some(location) = location else { continue };
        let load = GatewayLoad { id, tunnels, max_tunnels, is_draining: draining };
        loads.entry(location).or_default().push(load);
    }
    loads
}

/// The next step of the tunnel with these places.
fn step_of(rows: &[PlacedRow], loads: &Loads) -> Option<PlacementStep> {
    let PlacedRow { location, redundant, .. } = rows.first()?;
    let endpoint = |row: &PlacedRow| PlacedEndpoint {
        gateway: row.gateway,
        is_ready: row.ready == Some(row.generation) && row.problem.is_none_or(Reason::is_warning),
        // Without IPsec, there is nothing to connect.
        is_connected: row.state == Some(ConnectionState::Up) || row.esp == Some(EspMode::Off),
    };
    let current: Vec<_> = rows.iter().map(endpoint).collect();
    placement_step(loads.get(location)?, &current, 1 + usize::from(*redundant))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::Row as _;

    #[tokio::test]
    async fn a_look_for_tunnels_to_move_does_not_scan_all_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::store::fresh(dir.path()).await;
        let text = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {SELECT}{UNSETTLED}{ORDER}"));
        let mut reader = store.database.readers.acquire().await.unwrap();
        let plan = sqlx::query(text).fetch_all(&mut *reader).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
        let scans = |step: &&String| {
            step.starts_with("SCAN") && !step.contains("USING") && !step.contains("SUBQUERY")
        };
        // There are few gateways.
        let of_rows: Vec<_> = plan.iter().filter(scans).filter(|step| *step != "SCAN x").collect();
        assert!(of_rows.is_empty(), "{plan:?}");
        for index in ["ipsec_tunnel_redundant", "endpoint_place_further", "endpoint_place_gateway"] {
            assert!(plan.iter().any(|step| step.contains(index)), "{index}: {plan:?}");
        }
    }
}
