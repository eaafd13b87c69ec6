//! Hosting agents: the replicas that serve an environment. A barred agent is gone for the API, and kept so that
//! gateways refuse a certificate that is still valid.

use crate::{
    Action, Filter, FilterValue, ListRequest, Page, PageRequest, ResourceType, Result, Store, StoreError,
    WriteContext,
    columns::{Query, hex, parsed, parsed_option, shown, text, time, time_option},
    event::{self, NewEvent},
    execution::Execution,
    list::{Listing, of},
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::{AnyConnection, Row, any::AnyRow};
use std::net::IpAddr;
use wicketgate_model::{AgentId, EnvironmentId, FrontdoorId, ZId};

#[derive(Debug, Clone)]
pub struct AgentRow {
    pub id: AgentId,
    pub frontdoor: FrontdoorId,
    pub environment: EnvironmentId,
    /// The environment's.
    pub z_id: ZId,
    /// Its host name, as it reported it.
    pub name: String,
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

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT a.*, e.z_id AS z_id FROM agent a JOIN environment e ON e.id = a.environment ", $rest)
    };
}

impl AgentRow {
    pub(crate) fn read(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: parsed(row, "id")?,
            frontdoor: parsed(row, "frontdoor")?,
            environment: parsed(row, "environment")?,
            z_id: parsed(row, "z_id")?,
            name: text(row, "name")?,
            version: row.try_get("version")?,
            address: parsed_option(row, "address")?,
            connected_since: time_option(row, "connected_since")?,
            last_seen: time_option(row, "last_seen")?,
            created_at: time(row, "created_at")?,
            barred_at: time_option(row, "barred_at")?,
        })
    }
}

impl Store {
    pub async fn agents(&self, frontdoor: FrontdoorId, request: &ListRequest) -> Result<Page<AgentRow>> {
        self.list(&LISTING, of(&columns::FRONTDOOR, frontdoor), request, AgentRow::read).await
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
        let row = sqlx::query(select!("WHERE a.id = $1 AND a.frontdoor = $2 AND a.barred_at IS NULL"))
            .bind(id.to_string())
            .bind(frontdoor.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(AgentRow::read).transpose()
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
        let row = sqlx::query(
            "SELECT a.frontdoor, a.environment FROM agent a JOIN enrollment e ON e.agent = a.id \
             WHERE a.id = $1 AND e.public_key_sha256 = $2 AND a.barred_at IS NULL",
        )
        .bind(id.to_string())
        .bind(hex(public_key_sha256))
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(|r| Ok((parsed(r, "frontdoor")?, parsed(r, "environment")?))).transpose()
    }

    /// Its control connection is up. Updates its name too.
    pub async fn agent_connected(
        &self,
        id: AgentId,
        name: &str,
        version: &str,
        address: IpAddr,
        at: Timestamp,
    ) -> Result<()> {
        let update = sqlx::query(
            "UPDATE agent SET name = $1, version = $2, address = $3, connected_since = $4, last_seen = NULL \
             WHERE id = $5 AND barred_at IS NULL",
        )
        .bind(shown(name))
        .bind(shown(version))
        .bind(address.to_string())
        .bind(at.as_microsecond())
        .bind(id.to_string());
        self.update_agent(id, update, at).await
    }

    pub async fn agent_disconnected(&self, id: AgentId, at: Timestamp) -> Result<()> {
        let update = sqlx::query(
            "UPDATE agent SET connected_since = NULL, last_seen = $1 \
             WHERE id = $2 AND connected_since IS NOT NULL",
        )
        .bind(at.as_microsecond())
        .bind(id.to_string());
        self.update_agent(id, update, at).await
    }

    /// Leaves an agent that was never enrolled with this server alone.
    async fn update_agent(&self, id: AgentId, update: Query, at: Timestamp) -> Result<()> {
        let mut tx = self.begin().await?;
        match update_agent(&mut tx, id, update, at).await {
            Err(StoreError::Missing) => Ok(tx.rollback().await?),
            event => self.commit_telling(tx, event?.into_iter().collect()).await,
        }
    }

    /// For the start and the end of a gateway's link: agents that are connected are reported again. `seen` is when they
    /// were last known to be connected; without it, that is when they connected.
    pub async fn all_agents_disconnected(&self, at: Timestamp, seen: Option<Timestamp>) -> Result<()> {
        let mut tx = self.begin().await?;
        let active = sqlx::query(
            "SELECT id, frontdoor FROM environment WHERE deleted_at IS NULL AND id IN (SELECT environment \
             FROM agent WHERE connected_since IS NOT NULL AND barred_at IS NULL) ORDER BY id",
        )
        .fetch_all(&mut *tx)
        .await?;
        let mut events = Vec::new();
        for row in &active {
            let (environment, frontdoor) = (parsed(row, "id")?, parsed(row, "frontdoor")?);
            let (before, after) = (Some((frontdoor, true)), Some((frontdoor, false)));
            events.extend(event::of_environment(environment, before, after, at));
        }
        sqlx::query(
            "UPDATE agent SET last_seen = COALESCE($1, connected_since), connected_since = NULL \
             WHERE connected_since IS NOT NULL",
        )
        .bind(seen.map(Timestamp::as_microsecond))
        .execute(&mut *tx)
        .await?;
        self.commit_telling(tx, events).await
    }
}

impl Write {
    async fn bar_agent(&mut self, frontdoor: FrontdoorId, id: AgentId) -> Result<()> {
        let update = sqlx::query(
            "UPDATE agent SET barred_at = $1, connected_since = NULL, revision = $2 \
             WHERE id = $3 AND frontdoor = $4 AND barred_at IS NULL",
        )
        .bind(self.at())
        .bind(self.revision)
        .bind(id.to_string())
        .bind(frontdoor.to_string());
        let event = update_agent(&mut self.tx, id, update, self.context.at).await?;
        self.deferred.events.extend(event);
        let on = Execution { resource_type: ResourceType::Agent, resource: &id, generation: None };
        self.record(frontdoor, Action::Delete, on).await
    }
}

/// Updates one agent, and returns the event of its environment if that became active or offline by it.
async fn update_agent(
    db: &mut AnyConnection,
    id: AgentId,
    update: Query,
    at: Timestamp,
) -> Result<Option<NewEvent>> {
    let row = sqlx::query("SELECT environment FROM agent WHERE id = $1")
        .bind(id.to_string())
        .fetch_optional(&mut *db)
        .await?;
    let environment = parsed(&row.ok_or(StoreError::Missing)?, "environment")?;
    let before = event::is_active(db, environment).await?;
    if update.execute(&mut *db).await?.rows_affected() == 0 {
        return Err(StoreError::Missing);
    }
    let after = event::is_active(db, environment).await?;
    Ok(event::of_environment(environment, before, after, at))
}

pub(crate) static LISTING: Listing =
    Listing::new("a.*, e.z_id AS z_id", "agent a JOIN environment e ON e.id = a.environment", "a.id")
        .only("a.barred_at IS NULL");

pub mod columns {
    crate::list_column::columns! {
        ID = Text("a.id");
        FRONTDOOR = Text("a.frontdoor");
        ENVIRONMENT = Text("a.environment");
        Z_ID = Text("e.z_id");
        NAME = Text("a.name");
        STATUS = Text("CASE WHEN a.connected_since IS NULL THEN 'OFFLINE' ELSE 'CONNECTED' END");
        VERSION = Text("a.version").optional();
        ADDRESS = Text("a.address").optional();
        CONNECTED_SINCE = Time("a.connected_since").optional();
        LAST_SEEN = Time("a.last_seen").optional();
        CREATED_AT = Time("a.created_at");
    }
}
