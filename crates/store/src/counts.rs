//! Numbers of tunnels, shares and agents, for metrics.

use crate::{Result, Store, StoreError};
use sqlx::Row;
use wicketgate_model::Status;

/// Numbers of rows at one time. `DELETED` rows are not counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    pub tunnels: Vec<(Status, i64)>,
    pub shares: Vec<(Status, i64)>,
    pub agents_connected: i64,
}

impl Store {
    pub async fn counts(&self) -> Result<Counts> {
        let tunnels = "SELECT status, COUNT(*) FROM ipsec_tunnel WHERE status <> 'DELETED' GROUP BY status";
        let shares = "SELECT status, COUNT(*) FROM ipsec_share WHERE status <> 'DELETED' GROUP BY status";
        let agents = "SELECT COUNT(DISTINCT agent) FROM agent_link WHERE connected_since IS NOT NULL";
        Ok(Counts {
            tunnels: self.by_status(tunnels).await?,
            shares: self.by_status(shares).await?,
            agents_connected: sqlx::query(agents).fetch_one(&self.database.readers).await?.try_get(0)?,
        })
    }

    async fn by_status(&self, sql: &'static str) -> Result<Vec<(Status, i64)>> {
        let rows = sqlx::query(sql).fetch_all(&self.database.readers).await?;
        let counts = rows.iter().map(|row| {
            let name: String = row.try_get(0)?;
            Ok((name.parse().map_err(|_| StoreError::Corrupt { column: "status" })?, row.try_get(1)?))
        });
        counts.collect()
    }
}
