//! Numbers of tunnels, shares and agents, for metrics.

use crate::{Result, Store};
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
        let connected: Option<(i64,)> = self.find(agents, &[]).await?;
        Ok(Counts {
            tunnels: self.all(tunnels, &[]).await?,
            shares: self.all(shares, &[]).await?,
            agents_connected: connected.map_or(0, |(agents,)| agents),
        })
    }
}
