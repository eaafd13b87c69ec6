//! Environments: private networks that hosting agents serve. Only an enrolment creates one.

use crate::{
    Action, ListRequest, Page, ResourceType, Result, Store, StoreError, WriteContext,
    columns::{generation, number, parsed, time},
    execution::Execution,
    list::{Listing, of},
    share_count::Counted,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::any::AnyRow;
use wicketgate_model::{EnvironmentId, FrontdoorId, Generation, ResourceName, ShareId, Status, ZId};

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

/// How many links of an environment's agents are up.
macro_rules! connected {
    () => {
        "(SELECT COUNT(*) FROM agent a JOIN agent_link k ON k.agent = a.id WHERE a.environment = e.id \
         AND k.connected_since IS NOT NULL)"
    };
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT e.*, ",
            connected!(),
            " AS connected FROM environment e WHERE e.deleted_at IS NULL ",
            $rest
        )
    };
}

impl EnvironmentRow {
    pub(crate) fn read(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: parsed(row, "id")?,
            frontdoor: parsed(row, "frontdoor")?,
            z_id: parsed(row, "z_id")?,
            name: parsed(row, "name")?,
            active: number::<i64>(row, "connected")? > 0,
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
        })
    }
}

impl Store {
    pub async fn environments(
        &self,
        frontdoor: FrontdoorId,
        request: &ListRequest,
    ) -> Result<Page<EnvironmentRow>> {
        self.list(&LISTING, of(&columns::FRONTDOOR, frontdoor), request, EnvironmentRow::read).await
    }

    pub async fn environment(
        &self,
        frontdoor: FrontdoorId,
        id: EnvironmentId,
    ) -> Result<Option<EnvironmentRow>> {
        self.find(select!("AND e.id = $1 AND e.frontdoor = $2"), &[&id, &frontdoor], EnvironmentRow::read)
            .await
    }

    pub async fn environment_by_z_id(
        &self,
        frontdoor: FrontdoorId,
        z_id: &ZId,
    ) -> Result<Option<EnvironmentRow>> {
        self.find(select!("AND e.z_id = $1 AND e.frontdoor = $2"), &[z_id, &frontdoor], EnvironmentRow::read)
            .await
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
        sqlx::query("UPDATE environment SET name = $1, updated_at = $2 WHERE id = $3")
            .bind(name.as_str().to_owned())
            .bind(self.at())
            .bind(id.to_string())
            .execute(self.db())
            .await?;
        self.record(frontdoor, Action::Update, execution(&id)).await
    }

    async fn delete_environment(&mut self, frontdoor: FrontdoorId, id: EnvironmentId) -> Result<()> {
        self.check_environment(frontdoor, id).await?;
        sqlx::query("UPDATE environment SET deleted_at = $1, updated_at = $1 WHERE id = $2")
            .bind(self.at())
            .bind(id.to_string())
            .execute(self.db())
            .await?;
        self.record(frontdoor, Action::Delete, execution(&id)).await?;
        let shares = sqlx::query(self.locking(
            "SELECT id, generation, frontdoor, environment, status FROM ipsec_share WHERE environment = $1 \
             AND status NOT IN ('DELETING', 'DELETED') ORDER BY id",
            "ipsec_share",
        ))
        .bind(id.to_string())
        .fetch_all(self.db())
        .await?;
        for row in &shares {
            let share: ShareId = parsed(row, "id")?;
            let next = Generation::new(generation(row)?.get() + 1);
            let before = Counted::read(row)?;
            self.mark_share_deleting(share).await?;
            self.deferred.counts.remove(before);
            self.deferred.counts.add(Counted { status: Status::Deleting, ..before });
            self.record_share(frontdoor, share, next, Action::Delete).await?;
        }
        sqlx::query(
            "UPDATE agent_link SET connected_since = NULL \
             WHERE agent IN (SELECT id FROM agent WHERE environment = $1)",
        )
        .bind(id.to_string())
        .execute(self.db())
        .await?;
        sqlx::query(
            "UPDATE agent SET barred_at = $1, revision = $2 WHERE environment = $3 AND barred_at IS NULL",
        )
        .bind(self.at())
        .bind(self.revision)
        .bind(id.to_string())
        .execute(self.db())
        .await?;
        Ok(())
    }

    /// The environment is there, and in the state that the context expects. It stays so, since writes follow one another.
    async fn check_environment(&mut self, frontdoor: FrontdoorId, id: EnvironmentId) -> Result<()> {
        let row = sqlx::query(
            "SELECT updated_at FROM environment WHERE id = $1 AND frontdoor = $2 AND deleted_at IS NULL",
        )
        .bind(id.to_string())
        .bind(frontdoor.to_string())
        .fetch_optional(self.db())
        .await?;
        self.context.check(time(&row.ok_or(StoreError::Missing)?, "updated_at")?)
    }
}

fn execution(id: &EnvironmentId) -> Execution<'_> {
    Execution { resource_type: ResourceType::Environment, resource: id, generation: None }
}

pub(crate) static LISTING: Listing =
    Listing::new(concat!("e.*, ", connected!(), " AS connected"), "environment e", "e.id")
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
