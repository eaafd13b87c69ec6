//! Hosting agents: the replicas that serve an environment. A barred agent is gone for the API, and kept so that
//! gateways refuse a certificate that is still valid.

use crate::{
    Action, Filter, FilterValue, ListRequest, NamedRow, Page, PageRequest, ResourceType, Result, Store,
    StoreError, WriteContext,
    agent_link::Activity,
    execution::Execution,
    list::{Listing, of},
    row::rows,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use std::net::IpAddr;
use wicketgate_model::{AgentId, AgentName, EnvironmentId, FrontdoorId, ZId};

rows! {
    #[derive(Debug, Clone)]
    pub struct AgentRow {
        pub id: AgentId,
        pub frontdoor: FrontdoorId,
        pub environment: EnvironmentId,
        /// The environment's.
        pub z_id: ZId,
        /// As it reported it: its host's name, or what its operator has given on its command line.
        pub name: String,
        /// What a caller has named it, which hides the name that it reports.
        pub given_name: Option<AgentName>,
        /// As it reported when it last connected.
        pub version: Option<String>,
        /// Where it last connected from.
        pub address: Option<IpAddr>,
        /// `None` while it is not connected.
        pub connected_since: Option<Timestamp>,
        /// When it was last known to be connected; `None` while it is, and if it never was.
        pub last_seen: Option<Timestamp>,
        pub created_at: Timestamp,
        pub barred_at: Option<Timestamp>,
    }
}

impl AgentRow {
    pub fn named(&self) -> NamedRow {
        let name = self.given_name.as_ref().map_or_else(|| self.name.clone(), ToString::to_string);
        NamedRow::new(&self.id, &name)
    }
}

impl Store {
    pub async fn agents(&self, frontdoor: FrontdoorId, request: &ListRequest) -> Result<Page<AgentRow>> {
        self.list(&LISTING, of(&columns::FRONTDOOR, frontdoor), request).await
    }

    /// All agents of these environments.
    pub async fn agents_of(
        &self,
        frontdoor: FrontdoorId,
        environments: &[EnvironmentId],
    ) -> Result<Vec<AgentRow>> {
        if environments.is_empty() {
            return Ok(Vec::new());
        }
        let values = environments.iter().map(|e| FilterValue::Text(e.to_string())).collect();
        let request = ListRequest {
            page: PageRequest { number: 0, size: u32::MAX },
            filters: vec![Filter { column: &columns::ENVIRONMENT, values }],
            ..ListRequest::default()
        };
        Ok(self.agents(frontdoor, &request).await?.rows)
    }

    /// `None` once it is barred.
    pub async fn agent(&self, frontdoor: FrontdoorId, id: AgentId) -> Result<Option<AgentRow>> {
        self.find(LISTING.find("a.id = $1 AND a.frontdoor = $2"), &[&id, &frontdoor]).await
    }

    /// Names the agent; `None`: it has the name that it reports.
    pub async fn rename_agent(
        &self,
        frontdoor: FrontdoorId,
        id: AgentId,
        name: Option<AgentName>,
        context: &WriteContext,
    ) -> Result<()> {
        self.write(context, move |write| write.rename_agent(frontdoor, id, name).boxed()).await
    }

    /// Bars the agent: its connections are cut and its certificate is refused.
    pub async fn bar_agent(&self, frontdoor: FrontdoorId, id: AgentId, context: &WriteContext) -> Result<()> {
        self.write(context, move |write| write.bar_agent(frontdoor, id).boxed()).await
    }

    /// The agent's Frontdoor and environment, if it may get another certificate for the key: it is known, not barred,
    /// and enrolled with this key.
    pub async fn agent_with_key(
        &self,
        id: AgentId,
        public_key_sha256: &[u8; 32],
    ) -> Result<Option<(FrontdoorId, EnvironmentId)>> {
        let select = "SELECT frontdoor, environment FROM agent \
                      WHERE id = $1 AND public_key_sha256 = $2 AND barred_at IS NULL";
        self.find(select, &[&id, public_key_sha256]).await
    }
}

impl Write {
    async fn rename_agent(
        &mut self,
        frontdoor: FrontdoorId,
        id: AgentId,
        name: Option<AgentName>,
    ) -> Result<()> {
        let rename = "UPDATE agent SET given_name = $1 \
                      WHERE id = $2 AND frontdoor = $3 AND barred_at IS NULL RETURNING id";
        let renamed: Option<(AgentId,)> = self.tx.find(rename, &[&name, &id, &frontdoor]).await?;
        renamed.ok_or(StoreError::Missing)?;
        self.record(frontdoor, Action::Update, Execution::of(ResourceType::Agent, &id)).await.map(drop)
    }

    async fn bar_agent(&mut self, frontdoor: FrontdoorId, id: AgentId) -> Result<()> {
        let activity =
            Activity::of(&mut self.tx, id).await?.filter(|activity| activity.frontdoor == frontdoor);
        let activity = activity.ok_or(StoreError::Missing)?;
        let at = self.context.at;
        let bar = "UPDATE agent SET barred_at = $1, revision = $2 WHERE id = $3";
        self.tx.execute(bar, &[&at, &self.revision, &id]).await?;
        self.tx.execute("UPDATE agent_link SET connected_since = NULL WHERE agent = $1", &[&id]).await?;
        self.tx.execute("DELETE FROM agent_report WHERE agent = $1", &[&id]).await?;
        let event = activity.event(&mut self.tx, at).await?;
        self.deferred.events.extend(event);
        self.record(frontdoor, Action::Delete, Execution::of(ResourceType::Agent, &id)).await.map(drop)
    }
}

/// Agents with their environment and one of their links: the newest that is up, or else the one that was up last.
pub(crate) static LISTING: Listing = Listing::new(
    "a.*, e.z_id AS z_id, k.version, k.address, k.connected_since, k.last_seen",
    "agent a JOIN environment e ON e.id = a.environment LEFT JOIN agent_link k ON k.agent = a.id \
     AND k.gateway = (SELECT n.gateway FROM agent_link n WHERE n.agent = a.id ORDER BY n.connected_since IS NULL, \
     n.connected_since DESC, n.last_seen IS NULL, n.last_seen DESC, n.gateway LIMIT 1)",
    "a.id",
)
.only("a.barred_at IS NULL");

pub mod columns {
    crate::list_column::columns! {
        ID = Text("a.id");
        FRONTDOOR = Text("a.frontdoor");
        ENVIRONMENT = Text("a.environment");
        Z_ID = Text("e.z_id");
        NAME = Text("COALESCE(a.given_name, a.name)");
        STATUS = Text("CASE WHEN k.connected_since IS NULL THEN 'OFFLINE' ELSE 'CONNECTED' END");
        VERSION = Text("k.version").optional();
        ADDRESS = Text("k.address").optional();
        CONNECTED_SINCE = Time("k.connected_since").optional();
        LAST_SEEN = Time("k.last_seen").optional();
        CREATED_AT = Time("a.created_at");
    }
}
