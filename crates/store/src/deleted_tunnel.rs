//! Which tunnels a gateway is to serve no longer, for one that asks before it removes very many.

use crate::{
    Result, Store,
    bulk::{list, parts},
    field::Argument,
};
use sqlx::AssertSqlSafe;
use wicketgate_model::{GatewayId, TunnelId};

impl Store {
    /// Those that were deleted, or whose place at this gateway was withdrawn. One without a row is not among them.
    pub async fn deleted_tunnels(&self, gateway: GatewayId, tunnels: &[TunnelId]) -> Result<Vec<TunnelId>> {
        let mut found = Vec::new();
        for part in parts(tunnels) {
            let select = format!(
                "SELECT id FROM ipsec_tunnel WHERE id IN ({}) AND (status IN ('DELETING', 'DELETED') OR EXISTS (SELECT 1 \
                 FROM endpoint_place p WHERE p.tunnel = ipsec_tunnel.id AND p.gateway = ${} AND p.withdrawn_at IS NOT NULL))",
                list(part.len()),
                part.len() + 1
            );
            let mut values: Vec<&dyn Argument> = part.iter().map(|id| id as &dyn Argument).collect();
            values.push(&gateway);
            let rows: Vec<(TunnelId,)> = self.all(AssertSqlSafe(select), &values).await?;
            found.extend(rows.into_iter().map(|(id,)| id));
        }
        Ok(found)
    }
}
