//! What agents have reported of themselves. Only the last report of each is kept.

use crate::{GatewayEpoch, Result, Store, StoreError};
use jiff::Timestamp;
use wicketgate_model::{AgentId, AgentReport};

impl Store {
    /// Replaces the agent's report, unless it is the same: agents send their report again. Ignores an agent that is unknown or barred.
    pub async fn agent_reported(
        &self,
        epoch: &GatewayEpoch,
        agent: AgentId,
        report: &AgentReport,
        at: Timestamp,
    ) -> Result<()> {
        let text = serde_json::to_string(report).map_err(|_| StoreError::Missing)?;
        let mut tx = self.begin_under(epoch).await?;
        let replace = "INSERT INTO agent_report (agent, at, report) \
                       SELECT id, $2, $3 FROM agent WHERE id = $1 AND barred_at IS NULL \
                       ON CONFLICT (agent) DO UPDATE SET at = excluded.at, report = excluded.report \
                       WHERE agent_report.report <> excluded.report";
        tx.execute(replace, &[&agent, &at, &text]).await?;
        tx.commit().await
    }

    /// The agent's last report, and when it arrived first. `None` also for one that this version cannot read.
    pub async fn agent_report(&self, agent: AgentId) -> Result<Option<(Timestamp, AgentReport)>> {
        let select = "SELECT at, report FROM agent_report WHERE agent = $1";
        let found: Option<(Timestamp, String)> = self.find(select, &[&agent]).await?;
        Ok(found.and_then(|(at, text)| Some((at, serde_json::from_str(&text).ok()?))))
    }
}
