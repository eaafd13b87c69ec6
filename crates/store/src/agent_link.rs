//! Links of agents: the control connection of an agent to a gateway. An environment is active while one is up.
//!
//! Invariant: no link of a barred agent is up.

use crate::{
    GatewayEpoch, Result, Store,
    event::{EventKind, NewEvent},
    field::shown,
    transaction::Transaction,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use std::net::IpAddr;
use wicketgate_model::{AgentId, EnvironmentId, FrontdoorId, GatewayId};

/// An agent's link to a gateway, as it was just made.
#[derive(Debug, Clone)]
pub struct AgentLink {
    pub agent: AgentId,
    /// The agent's host name, as it reports it.
    pub name: String,
    pub version: String,
    /// Where it connects from.
    pub address: IpAddr,
}

impl Store {
    /// Records a link that is up, and the agent's name. Ignores an agent that is unknown or barred.
    pub async fn agent_connected(&self, epoch: &GatewayEpoch, link: &AgentLink, at: Timestamp) -> Result<()> {
        let (gateway, link) = (epoch.gateway(), link.clone());
        self.settle_under(epoch, move |write| write.connect_agent(gateway, link, at).boxed()).await
    }

    /// Records that a link has ended. Ignores an agent that is not connected.
    pub async fn agent_disconnected(
        &self,
        epoch: &GatewayEpoch,
        agent: AgentId,
        at: Timestamp,
    ) -> Result<()> {
        let gateway = epoch.gateway();
        self.settle_under(epoch, move |write| write.disconnect_agent(gateway, agent, at).boxed()).await
    }
}

impl Write {
    async fn connect_agent(&mut self, gateway: GatewayId, link: AgentLink, at: Timestamp) -> Result<()> {
        let AgentLink { agent, name, version, address } = link;
        let Some(activity) = Activity::of(&mut self.tx, agent).await? else { return Ok(()) };
        let rename = "UPDATE agent SET name = $1 WHERE id = $2";
        self.tx.execute(rename, &[&shown(&name), &agent]).await?;
        let connect = "INSERT INTO agent_link (agent, gateway, version, address, connected_since) \
             VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (agent, gateway) DO UPDATE SET version = excluded.version, address = excluded.address, \
             connected_since = excluded.connected_since, last_seen = NULL";
        self.tx.execute(connect, &[&agent, &gateway, &shown(&version), &address, &at]).await?;
        self.deferred.events.extend(activity.event(&mut self.tx, at).await?);
        Ok(())
    }

    async fn disconnect_agent(&mut self, gateway: GatewayId, agent: AgentId, at: Timestamp) -> Result<()> {
        let Some(activity) = Activity::of(&mut self.tx, agent).await? else { return Ok(()) };
        let disconnect = "UPDATE agent_link SET connected_since = NULL, last_seen = $1 \
                          WHERE agent = $2 AND gateway = $3 AND connected_since IS NOT NULL";
        self.tx.execute(disconnect, &[&at, &agent, &gateway]).await?;
        self.deferred.events.extend(activity.event(&mut self.tx, at).await?);
        Ok(())
    }
}

/// An environment before a change of its agents' links, which follow one another.
pub(crate) struct Activity {
    pub(crate) frontdoor: FrontdoorId,
    environment: EnvironmentId,
    was_active: bool,
}

impl Activity {
    /// Of an agent's environment; `None` if the agent is unknown or barred.
    pub(crate) async fn of(tx: &mut Transaction, agent: AgentId) -> Result<Option<Self>> {
        let find = "SELECT e.id, e.frontdoor FROM environment e JOIN agent a ON a.environment = e.id \
                    WHERE a.id = $1 AND a.barred_at IS NULL";
        let Some((environment, frontdoor)) = tx.find(find, &[&agent]).await? else { return Ok(None) };
        Ok(Some(Self { frontdoor, environment, was_active: is_active(tx, environment).await? }))
    }

    /// The event of the environment, if it has become active or offline.
    pub(crate) async fn event(self, tx: &mut Transaction, at: Timestamp) -> Result<Option<NewEvent>> {
        let is_active = is_active(tx, self.environment).await?;
        let event = || environment_event(self.frontdoor, self.environment, is_active, at);
        Ok((is_active != self.was_active).then(event))
    }
}

async fn is_active(tx: &mut Transaction, environment: EnvironmentId) -> Result<bool> {
    let count = "SELECT COUNT(*) FROM agent a JOIN agent_link k ON k.agent = a.id \
                 WHERE a.environment = $1 AND k.connected_since IS NOT NULL";
    let (is_active,) = tx.one(count, &[&environment]).await?;
    Ok(is_active)
}

pub(crate) fn environment_event(
    frontdoor: FrontdoorId,
    environment: EnvironmentId,
    is_active: bool,
    at: Timestamp,
) -> NewEvent {
    NewEvent {
        frontdoor,
        at,
        kind: EventKind::Environment,
        resource: environment.to_string(),
        status: if is_active { "ACTIVE" } else { "OFFLINE" },
        why: None,
    }
}
