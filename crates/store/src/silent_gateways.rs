//! Rows of gateways to which no server has a link: whoever looks after the database says so.
//!
//! Invariant: what is decided here is written only while the gateway has no link. The next link waits for the transaction.

use crate::{
    Resource, Result, RowReport, ShareRow, StatusUpdate, Store, StoreError, TunnelRow, row::rows, share,
    tunnel,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::AssertSqlSafe;
use wicketgate_model::{Deadlines, GatewayId, Generation, Observation, ShareId, TunnelId, next};

/// Rows of one kind in a transaction.
const AT_ONCE: i64 = 500;

rows! {
    struct SilentGateway {
        gateway: GatewayId,
        since: Timestamp,
    }
}

/// Of a gateway in a process of its own that was not removed.
const SILENT: &str = "SELECT k.gateway, COALESCE(k.lost_at, g.created_at) AS since FROM gateway_link k JOIN gateway g ON g.id = k.gateway \
    WHERE g.in_process = 0 AND g.deleted_at IS NULL AND (k.linked_at IS NULL OR k.lost_at IS NOT NULL)";
/// `$1` is the gateway.
const HAS_NO_LINK: &str =
    "SELECT epoch FROM gateway_link WHERE gateway = $1 AND (linked_at IS NULL OR lost_at IS NOT NULL)";
/// Rows of tunnels that no other gateway serves that have to be told, and changes whose time is over. `$1` is the gateway, `$2` the
/// moment before which changes are late.
const UNTOLD: &str = " IN (SELECT c.tunnel FROM endpoint_place c WHERE c.gateway = $1 AND c.withdrawn_at IS NULL \
    AND NOT EXISTS (SELECT 1 FROM endpoint_place o WHERE o.tunnel = c.tunnel AND o.gateway <> $1 AND o.withdrawn_at IS NULL)) \
    AND status <> 'DELETED' AND (reason IS NULL OR reason NOT IN ('GatewayUnreachable', 'Expired', 'PeerAddressTaken') \
    OR (status = 'NEW' AND status_since <= $2))";
/// As [`UNTOLD`], of tunnels that another gateway serves, too.
const UNTOLD_BESIDE: &str = " IN (SELECT c.tunnel FROM endpoint_place c WHERE c.gateway = $1 AND c.withdrawn_at IS NULL \
    AND EXISTS (SELECT 1 FROM endpoint_place o WHERE o.tunnel = c.tunnel AND o.gateway <> $1 AND o.withdrawn_at IS NULL)) \
    AND status <> 'DELETED' AND (NOT EXISTS (SELECT 1 FROM endpoint_state s WHERE s.resource = r.id AND s.gateway = $1 \
    AND s.seen = 'UNREACHABLE' AND s.of_generation = r.generation) OR (status = 'NEW' AND status_since <= $2))";

impl Store {
    /// Has the rows of gateways that have no link for long, and had no server before `begun`, say so, and changes that no gateway takes in time be errors. Returns whether
    /// there may be more to do.
    ///
    /// # Errors
    /// Of the first gateway that could not be told of; the others were.
    pub async fn tell_of_silent_gateways(
        &self,
        deadlines: Deadlines,
        begun: Timestamp,
        now: Timestamp,
    ) -> Result<bool> {
        let silent: Vec<SilentGateway> = self.all(SILENT, &[]).await?;
        let (mut is_more, mut failed) = (false, None);
        for SilentGateway { gateway, since } in silent {
            if now.duration_since(since.max(begun)) < deadlines.unreachable {
                continue;
            }
            let seen = Observation::Unreachable { since, is_linked: false };
            let told = async {
                let of_its_own = self.tell_of(gateway, &seen, deadlines, now).await?;
                Ok(of_its_own.max(self.tell_of_shared(gateway, &seen, deadlines, now).await?))
            };
            match told.await {
                Ok(updates) => is_more |= updates >= usize::try_from(AT_ONCE).unwrap_or_default(),
                Err(StoreError::Superseded) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(is_more), Err)
    }

    /// Returns how many rows it has changed.
    async fn tell_of(
        &self,
        gateway: GatewayId,
        seen: &Observation,
        deadlines: Deadlines,
        now: Timestamp,
    ) -> Result<usize> {
        let late = now - deadlines.provisioning;
        let select = |selected: &str, table: &str, tunnel: &str| {
            // Constants of this program.
            AssertSqlSafe(format!("SELECT {selected} FROM {table} WHERE {tunnel}{UNTOLD} LIMIT {AT_ONCE}"))
        };
        let tunnels = select(tunnel::selected!(), "ipsec_tunnel", "id");
        let shares = select(share::selected!(), "ipsec_share", "tunnel");
        let tunnels: Vec<TunnelRow> = self.all(tunnels, &[&gateway, &late]).await?;
        let shares: Vec<ShareRow> = self.all(shares, &[&gateway, &late]).await?;
        let update = |resource, generation, standing| StatusUpdate {
            resource,
            generation,
            standing: next(standing, generation, seen, deadlines, now),
        };
        let of_tunnels =
            tunnels.iter().map(|row| update(Resource::Tunnel(row.id), row.generation, &row.standing));
        let of_shares =
            shares.iter().map(|row| update(Resource::Share(row.id), row.generation, &row.standing));
        let updates: Vec<_> = of_tunnels.chain(of_shares).collect();
        let count = updates.len();
        if count == 0 {
            return Ok(0);
        }
        let written = self.settle(move |write| {
            async move {
                let select = write.sharing(HAS_NO_LINK);
                let none: Option<(i64,)> = write.tx.find(select, &[&gateway]).await?;
                none.ok_or(StoreError::Superseded)?;
                write.update_statuses(&updates).await
            }
            .boxed()
        });
        written.await.map(|()| count)
    }

    /// As [`Store::tell_of`], of rows that another gateway serves, too: their statuses follow from what both report.
    async fn tell_of_shared(
        &self,
        gateway: GatewayId,
        seen: &Observation,
        deadlines: Deadlines,
        now: Timestamp,
    ) -> Result<usize> {
        let late = now - deadlines.provisioning;
        let select = |table: &str, tunnel: &str| {
            // Constants of this program.
            AssertSqlSafe(format!(
                "SELECT r.id, r.generation FROM {table} r WHERE {tunnel}{UNTOLD_BESIDE} LIMIT {AT_ONCE}"
            ))
        };
        let tunnels: Vec<(TunnelId, Generation)> =
            self.all(select("ipsec_tunnel", "r.id"), &[&gateway, &late]).await?;
        let shares: Vec<(ShareId, Generation)> =
            self.all(select("ipsec_share", "r.tunnel"), &[&gateway, &late]).await?;
        let report = |resource, generation| RowReport { resource, generation, seen: seen.clone() };
        let of_tunnels = tunnels.into_iter().map(|(id, generation)| report(Resource::Tunnel(id), generation));
        let of_shares = shares.into_iter().map(|(id, generation)| report(Resource::Share(id), generation));
        let reports: Vec<_> = of_tunnels.chain(of_shares).collect();
        let count = reports.len();
        if count == 0 {
            return Ok(0);
        }
        let written = self.settle(move |write| {
            async move {
                let select = write.sharing(HAS_NO_LINK);
                let none: Option<(i64,)> = write.tx.find(select, &[&gateway]).await?;
                none.ok_or(StoreError::Superseded)?;
                write.observe(gateway, reports, deadlines, now).await
            }
            .boxed()
        });
        written.await.map(|_| count)
    }
}
