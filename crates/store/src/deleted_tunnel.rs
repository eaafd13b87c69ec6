//! Which tunnels a gateway is to serve no longer, for one that asks before it removes very many.

use crate::{
    Result, Store,
    bulk::{list, parts},
    field::Argument,
};
use sqlx::AssertSqlSafe;
use wicketgate_model::{GatewayId, TunnelId};

impl Store {
    /// Those that were deleted, whose place at this gateway was withdrawn, or that have all their places at other gateways. One without a
    /// row is not among them.
    pub async fn deleted_tunnels(&self, gateway: GatewayId, tunnels: &[TunnelId]) -> Result<Vec<TunnelId>> {
        let mut found = Vec::new();
        for part in parts(tunnels) {
            let (ids, gateway_is) = (list(part.len()), format!("p.gateway = ${}", part.len() + 1));
            let place = "EXISTS (SELECT 1 FROM endpoint_place p WHERE p.tunnel = ipsec_tunnel.id AND";
            let select = format!(
                "SELECT id FROM ipsec_tunnel WHERE id IN ({ids}) AND (status IN ('DELETING', 'DELETED') \
                 OR {place} {gateway_is} AND p.withdrawn_at IS NOT NULL) \
                 OR ({place} p.withdrawn_at IS NULL) AND NOT {place} {gateway_is})))"
            );
            let mut values: Vec<&dyn Argument> = part.iter().map(|id| id as &dyn Argument).collect();
            values.push(&gateway);
            let rows: Vec<(TunnelId,)> = self.all(AssertSqlSafe(select), &values).await?;
            found.extend(rows.into_iter().map(|(id,)| id));
        }
        Ok(found)
    }
}
