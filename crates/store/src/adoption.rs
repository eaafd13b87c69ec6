//! Agents that the database has lost and gets back: they enrolled after the backup from which it was restored, and have a
//! certificate of its authority.

use crate::{
    Action, AgentRow, ResourceType, Result, Store, StoreError, WriteContext, agent, bulk,
    execution::Execution,
    field::{Argument, shown},
    statement::Assignments,
    write::Write,
};
use futures_util::FutureExt as _;
use sqlx::AssertSqlSafe;
use wicketgate_model::{AgentId, EnvironmentId, FrontdoorId, QuotaKind, ZId};

/// As its certificate has it, and with the key that it has proved to hold.
#[derive(Debug, Clone)]
pub struct AdoptedAgent {
    pub agent: AgentId,
    pub environment: EnvironmentId,
    pub frontdoor: FrontdoorId,
    pub public_key_sha256: [u8; 32],
    /// Its host's, as it reports it.
    pub name: String,
    /// A fresh one, in case its environment is made again.
    pub z_id: ZId,
}

impl Store {
    /// Makes the agent one that the database knows, and its environment again if the database has none of its id.
    ///
    /// # Errors
    /// `Missing`: it was removed, it is known with another key, or its environment was deleted; `NoFrontdoor`.
    pub async fn adopt_agent(&self, adopted: &AdoptedAgent, context: &WriteContext) -> Result<AgentRow> {
        let adopted = adopted.clone();
        self.write(context, |write| write.adopt_agent(adopted).boxed()).await
    }

    /// Those of the agents that the database has a row of, removed or not.
    pub async fn known_agents(&self, ids: &[AgentId]) -> Result<Vec<AgentId>> {
        let mut known = Vec::new();
        for ids in bulk::parts(ids) {
            let select = format!("SELECT id FROM agent WHERE id IN ({})", bulk::list(ids.len()));
            let values: Vec<&dyn Argument> = ids.iter().map(|id| id as &dyn Argument).collect();
            let found: Vec<(AgentId,)> = self.all(AssertSqlSafe(select), &values).await?;
            known.extend(found.into_iter().map(|(id,)| id));
        }
        Ok(known)
    }
}

impl Write {
    async fn adopt_agent(&mut self, adopted: AdoptedAgent) -> Result<AgentRow> {
        let AdoptedAgent { agent: id, environment, frontdoor, public_key_sha256, name, z_id } = adopted;
        let select = "SELECT id FROM frontdoor WHERE id = $1 AND deleted_at IS NULL";
        let live: Option<(FrontdoorId,)> = self.tx.find(select, &[&frontdoor]).await?;
        live.ok_or(StoreError::NoFrontdoor(frontdoor))?;
        let known: Option<(AgentId,)> = self.tx.find("SELECT id FROM agent WHERE id = $1", &[&id]).await?;
        if known.is_some() {
            return Err(StoreError::Missing);
        }
        self.need_room(&[frontdoor], QuotaKind::Agents).await?;
        let select = "SELECT frontdoor, deleted_at IS NULL AS is_live FROM environment WHERE id = $1";
        let there: Option<(FrontdoorId, bool)> = self.tx.find(select, &[&environment]).await?;
        match there {
            Some((of, true)) if of == frontdoor => {}
            Some(_) => return Err(StoreError::Missing),
            None => {
                self.need_room(&[frontdoor], QuotaKind::Environments).await?;
                self.insert_environment(environment, frontdoor, (&name, &z_id)).await?;
            }
        }
        let name = shown(&name);
        let set = Assignments::new(&[
            ("id", &id),
            ("frontdoor", &frontdoor),
            ("environment", &environment),
            ("name", &name),
            ("public_key_sha256", &public_key_sha256),
            ("created_at", &self.context.at),
            ("revision", &self.revision),
        ]);
        self.tx.run(set.insert("agent", "")?).await?;
        self.record(frontdoor, Action::Enrol, Execution::of(ResourceType::Agent, &id)).await?;
        let row = self.tx.find(agent::LISTING.find("a.id = $1"), &[&id]).await?;
        row.ok_or(StoreError::Stale)
    }
}
