//! Places of tunnels: the gateways that are to serve them. [`place`] has the rule.
//!
//! Invariant: a tunnel gets its first place in the transaction that creates it, or in the one that registers the first gateway of its
//! location. Writes follow one another, so that no room of a gateway is given away twice. Later ones are given by `placement.rs`.

use crate::{Result, row::rows, write::Write};
use wicketgate_model::{GatewayId, GatewayLoad, LocationId, TunnelId, place};

/// The gateway that a tunnel is placed at first: a value of the tunnel whose column `$tunnel` is its id, NULL if it has no place. A
/// subquery instead of a join: RETURNING can use it too.
macro_rules! first_place {
    ($tunnel:literal) => {
        concat!(
            "(SELECT e.gateway FROM endpoint_place e WHERE e.tunnel = ",
            $tunnel,
            " AND e.withdrawn_at IS NULL ORDER BY e.ordinal LIMIT 1)"
        )
    };
}
pub(crate) use first_place;

/// Whether a tunnel is served by as many gateways as it should, as a value of the tunnel with these columns: MET if nothing impairs it
/// at two of its places.
macro_rules! redundancy {
    ($tunnel:literal, $redundant:literal, $generation:literal) => {
        concat!(
            "(CASE WHEN ",
            $redundant,
            " = 0 THEN 'NONE' WHEN (SELECT COUNT(*) FROM endpoint_place m JOIN endpoint_state s \
             ON s.resource = m.tunnel AND s.gateway = m.gateway WHERE m.tunnel = ",
            $tunnel,
            " AND m.withdrawn_at IS NULL AND s.ready = ",
            $generation,
            " AND COALESCE(s.problem, 'RedundancyLost') IN \
             ('ConnectionsRefused', 'ConnectionsUnanswered', 'AgentDuplicated', 'RedundancyLost')) >= 2 \
             THEN 'MET' ELSE 'NOT_MET' END)"
        )
    };
}
pub(crate) use redundancy;

rows! {
    /// A gateway of a location.
    struct Candidate {
        id: GatewayId,
        max_tunnels: Option<u32>,
        draining: bool,
    }
}

impl Write {
    /// Places a new tunnel at `wanted` gateways, if there are so many with room, and returns the first of them. One at a location
    /// without a gateway gets its place with the first gateway.
    pub(crate) async fn place_tunnel(
        &mut self,
        tunnel: TunnelId,
        location: &LocationId,
        wanted: usize,
    ) -> Result<Option<GatewayId>> {
        let select = "SELECT id, max_tunnels, draining FROM gateway WHERE location = $1 AND deleted_at IS NULL ORDER BY id";
        let candidates: Vec<Candidate> = self.tx.all(select, &[location]).await?;
        let mut loads = Vec::new();
        for Candidate { id, max_tunnels, draining } in &candidates {
            // There may be very many, and a single gateway gets the tunnel however many there are.
            let tunnels = if candidates.len() > 1 { self.tunnels_at(*id).await? } else { 0 };
            loads.push(GatewayLoad { id: *id, tunnels, max_tunnels: *max_tunnels, is_draining: *draining });
        }
        let placed = place(&loads, &[], wanted);
        for (gateway, ordinal) in placed.iter().zip(1_i64..) {
            let insert = "INSERT INTO endpoint_place (tunnel, gateway, ordinal, placed_at, revision) \
                          VALUES ($1, $2, $3, $4, $5)";
            let at = self.context.at;
            self.tx.execute(insert, &[&tunnel, gateway, &ordinal, &at, &self.revision]).await?;
        }
        Ok(placed.first().copied())
    }

    /// How many tunnels are placed at a gateway.
    pub(crate) async fn tunnels_at(&mut self, gateway: GatewayId) -> Result<u64> {
        let count = "SELECT COUNT(*) FROM endpoint_place p JOIN ipsec_tunnel t ON t.id = p.tunnel \
                     WHERE p.gateway = $1 AND p.withdrawn_at IS NULL AND t.status <> 'DELETED'";
        let (tunnels,) = self.tx.one(count, &[&gateway]).await?;
        Ok(tunnels)
    }

    /// Places all tunnels of a location that have no place at this gateway of it.
    pub(crate) async fn place_the_unplaced(
        &mut self,
        gateway: GatewayId,
        location: &LocationId,
    ) -> Result<()> {
        let insert = "INSERT INTO endpoint_place (tunnel, gateway, ordinal, placed_at, revision) \
                      SELECT t.id, $1, 1, $2, $3 FROM ipsec_tunnel t WHERE t.location = $4 AND t.status <> 'DELETED' \
                      AND NOT EXISTS (SELECT 1 FROM endpoint_place p WHERE p.tunnel = t.id AND p.withdrawn_at IS NULL) \
                      ON CONFLICT (tunnel, gateway) DO UPDATE SET ordinal = excluded.ordinal, \
                      placed_at = excluded.placed_at, withdrawn_at = NULL, revision = excluded.revision";
        let at = self.context.at;
        self.tx.execute(insert, &[&gateway, &at, &self.revision, location]).await.map(drop)
    }
}
