//! Environments: private networks that hosting agents serve. Only an enrolment creates one.

use crate::{
    Action, ListRequest, NamedRow, Page, ResourceType, Result, Store, StoreError, WriteContext,
    execution::Execution,
    list::{Listing, of},
    row::rows,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use wicketgate_model::{EnvironmentId, EnvironmentKey, FrontdoorId, ResourceName, ZId};

rows! {
    #[derive(Debug, Clone)]
    pub struct EnvironmentRow {
        pub id: EnvironmentId,
        pub frontdoor: FrontdoorId,
        pub z_id: ZId,
        pub name: ResourceName,
        /// At least one of its agents is connected.
        pub active: bool,
        pub created_at: Timestamp,
        pub updated_at: Timestamp,
    }
}

impl EnvironmentRow {
    /// By its zId, which people see.
    pub fn named(&self) -> NamedRow {
        NamedRow::new(&self.z_id, &self.name)
    }
}

/// How many links of an environment's agents are up.
macro_rules! connected {
    () => {
        "(SELECT COUNT(*) FROM agent a JOIN agent_link k ON k.agent = a.id WHERE a.environment = e.id \
         AND k.connected_since IS NOT NULL)"
    };
}

impl Store {
    pub async fn environments(
        &self,
        frontdoor: FrontdoorId,
        request: &ListRequest,
    ) -> Result<Page<EnvironmentRow>> {
        self.list(&LISTING, of(&columns::FRONTDOOR, frontdoor), request).await
    }

    pub async fn environment(
        &self,
        frontdoor: FrontdoorId,
        id: EnvironmentId,
    ) -> Result<Option<EnvironmentRow>> {
        self.find(LISTING.find("e.id = $1 AND e.frontdoor = $2"), &[&id, &frontdoor]).await
    }

    pub async fn environment_of(
        &self,
        frontdoor: FrontdoorId,
        key: &EnvironmentKey,
    ) -> Result<Option<EnvironmentRow>> {
        match key {
            EnvironmentKey::Id(id) => self.environment(frontdoor, *id).await,
            EnvironmentKey::ZId(z_id) => self.environment_by_z_id(frontdoor, z_id).await,
        }
    }

    pub async fn environment_by_z_id(
        &self,
        frontdoor: FrontdoorId,
        z_id: &ZId,
    ) -> Result<Option<EnvironmentRow>> {
        self.find(LISTING.find("e.z_id = $1 AND e.frontdoor = $2"), &[z_id, &frontdoor]).await
    }

    pub async fn rename_environment(
        &self,
        frontdoor: FrontdoorId,
        id: EnvironmentId,
        name: &ResourceName,
        context: &WriteContext,
    ) -> Result<()> {
        let name = name.clone();
        self.write(context, move |write| write.rename_environment(frontdoor, id, name).boxed()).await
    }

    /// Marks its live shares `DELETING` and bars its agents, in the same transaction.
    pub async fn delete_environment(
        &self,
        frontdoor: FrontdoorId,
        id: EnvironmentId,
        context: &WriteContext,
    ) -> Result<()> {
        self.write(context, move |write| write.delete_environment(frontdoor, id).boxed()).await
    }
}

impl Write {
    async fn rename_environment(
        &mut self,
        frontdoor: FrontdoorId,
        id: EnvironmentId,
        name: ResourceName,
    ) -> Result<()> {
        self.check_environment(frontdoor, id).await?;
        let rename = "UPDATE environment SET name = $1, updated_at = $2 WHERE id = $3";
        self.tx.execute(rename, &[&name, &self.context.at, &id]).await?;
        self.record(frontdoor, Action::Update, Execution::of(ResourceType::Environment, &id)).await.map(drop)
    }

    async fn delete_environment(&mut self, frontdoor: FrontdoorId, id: EnvironmentId) -> Result<()> {
        self.check_environment(frontdoor, id).await?;
        let at = self.context.at;
        let delete = "UPDATE environment SET deleted_at = $1, updated_at = $1 WHERE id = $2";
        self.tx.execute(delete, &[&at, &id]).await?;
        self.record(frontdoor, Action::Delete, Execution::of(ResourceType::Environment, &id)).await?;
        self.delete_shares_of(frontdoor, id).await?;
        let disconnect = "UPDATE agent_link SET connected_since = NULL \
                          WHERE agent IN (SELECT id FROM agent WHERE environment = $1)";
        self.tx.execute(disconnect, &[&id]).await?;
        let bar =
            "UPDATE agent SET barred_at = $1, revision = $2 WHERE environment = $3 AND barred_at IS NULL";
        self.tx.execute(bar, &[&at, &self.revision, &id]).await?;
        Ok(())
    }

    /// The environment is there, and in the state that the context expects. It stays so, since writes follow one another.
    async fn check_environment(&mut self, frontdoor: FrontdoorId, id: EnvironmentId) -> Result<()> {
        let updated_at = self.environment_updated(frontdoor, id).await?;
        self.context.check(updated_at.ok_or(StoreError::Missing)?)
    }

    /// When the environment was last changed, if it is there.
    pub(crate) async fn environment_updated(
        &mut self,
        frontdoor: FrontdoorId,
        id: EnvironmentId,
    ) -> Result<Option<Timestamp>> {
        let select =
            "SELECT updated_at FROM environment WHERE id = $1 AND frontdoor = $2 AND deleted_at IS NULL";
        Ok(self.tx.find(select, &[&id, &frontdoor]).await?.map(|(updated_at,)| updated_at))
    }
}

pub(crate) static LISTING: Listing =
    Listing::new(concat!("e.*, ", connected!(), " AS active"), "environment e", "e.id")
        .only("e.deleted_at IS NULL");

pub mod columns {
    crate::list_column::columns! {
        ID = Text("e.id");
        Z_ID = Text("e.z_id");
        FRONTDOOR = Text("e.frontdoor");
        NAME = Text("e.name");
        STATUS = Text(concat!("CASE WHEN ", connected!(), " > 0 THEN 'ACTIVE' ELSE 'OFFLINE' END"));
        CREATED_AT = Time("e.created_at");
        UPDATED_AT = Time("e.updated_at");
    }
}
