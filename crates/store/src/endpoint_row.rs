//! The endpoints of tunnels: their gateways, with what each of them reports.

use crate::{
    Result, Store,
    bulk::{list, parts},
    field::Argument,
    row::rows,
};
use sqlx::AssertSqlSafe;
use wicketgate_model::{Connection, GatewayId, Generation, Problem, Reason, TunnelId};

rows! {
    /// A place of a tunnel, as its gateway has reported it.
    #[derive(Debug, Clone)]
    pub struct EndpointRow {
        pub tunnel: TunnelId,
        pub gateway: GatewayId,
        /// The gateway is to be emptied: the tunnel leaves it.
        pub draining: bool,
        /// Of a tunnel with several places: the generation that is ready at this one.
        pub ready: Option<Generation>,
        problem: Option<Reason>,
        words: Option<String>,
        /// `None` until the gateway has reported it.
        pub connection: Option<Connection>,
    }
}

impl EndpointRow {
    /// Of a tunnel with several places: why it is not ready at this one, or what impairs it.
    pub fn problem(&self) -> Option<Problem> {
        Some(Problem::new(self.problem?, self.words.clone().unwrap_or_default()))
    }

    /// Of a tunnel of this generation with several places: whether nothing impairs it at this one.
    pub fn serves(&self, generation: Generation) -> bool {
        self.ready == Some(generation) && self.problem.is_none_or(Reason::is_warning)
    }
}

impl Store {
    /// Of these tunnels, in the order of their places.
    pub async fn endpoints(&self, tunnels: &[TunnelId]) -> Result<Vec<EndpointRow>> {
        let mut found = Vec::new();
        for part in parts(tunnels) {
            let select = format!(
                "SELECT p.tunnel, p.gateway, g.draining, s.ready, s.problem, s.words, e.connection FROM endpoint_place p \
                 JOIN gateway g ON g.id = p.gateway \
                 LEFT JOIN endpoint_state s ON s.resource = p.tunnel AND s.gateway = p.gateway \
                 LEFT JOIN tunnel_endpoint e ON e.tunnel = p.tunnel AND e.gateway = p.gateway \
                 WHERE p.tunnel IN ({}) AND p.withdrawn_at IS NULL ORDER BY p.tunnel, p.ordinal",
                list(part.len())
            );
            let ids: Vec<_> = part.iter().map(|id| id as &dyn Argument).collect();
            found.extend(self.all::<EndpointRow>(AssertSqlSafe(select), &ids).await?);
        }
        Ok(found)
    }
}
