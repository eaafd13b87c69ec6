//! Frontdoors. A Frontdoor is a customer's collection of tunnels, environments and shares.

use crate::{
    Action, ListRequest, Page, ResourceType, Result, Store, StoreError, WriteContext,
    columns::{number, parsed, text, time},
    execution::Execution,
    list::Listing,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::{Row, any::AnyRow};
use wicketgate_model::{FrontdoorId, NamespaceName};

#[derive(Debug, Clone)]
pub struct FrontdoorRow {
    pub id: FrontdoorId,
    pub organization: String,
    pub default_namespace: NamespaceName,
    pub ipsec_shares_enabled: bool,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub created_by: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontdoorSpec {
    /// Fixed once the Frontdoor is created.
    pub organization: String,
    pub default_namespace: NamespaceName,
    pub ipsec_shares_enabled: bool,
}

/// The Frontdoors that a caller may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    All,
    Organization(String),
    /// Those that it was granted by name.
    Named(Vec<FrontdoorId>),
}

impl Reach {
    pub fn sees(&self, frontdoor: &FrontdoorRow) -> bool {
        match self {
            Self::All => true,
            Self::Organization(own) => *own == frontdoor.organization,
            Self::Named(named) => named.contains(&frontdoor.id),
        }
    }
}

impl FrontdoorRow {
    pub fn spec(&self) -> FrontdoorSpec {
        FrontdoorSpec {
            organization: self.organization.clone(),
            default_namespace: self.default_namespace.clone(),
            ipsec_shares_enabled: self.ipsec_shares_enabled,
        }
    }

    pub(crate) fn read(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: parsed(row, "id")?,
            organization: text(row, "organization")?,
            default_namespace: parsed(row, "default_namespace")?,
            ipsec_shares_enabled: number::<i64>(row, "ipsec_shares_enabled")? != 0,
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
            created_by: text(row, "created_by")?,
        })
    }
}

impl Store {
    /// The Frontdoors within reach.
    pub async fn frontdoors(&self, reach: &Reach, request: &ListRequest) -> Result<Page<FrontdoorRow>> {
        let scope = match reach {
            Reach::All => None,
            Reach::Organization(own) => Some((&columns::ORGANIZATION, vec![own.clone()])),
            Reach::Named(ids) => Some((&columns::ID, ids.iter().map(ToString::to_string).collect())),
        };
        self.list(&LISTING, scope, request, FrontdoorRow::read).await
    }

    pub async fn create_frontdoor(
        &self,
        spec: &FrontdoorSpec,
        context: &WriteContext,
    ) -> Result<FrontdoorRow> {
        let spec = spec.clone();
        self.write(context, move |write| write.insert_frontdoor(spec).boxed()).await
    }

    /// Creates a Frontdoor if there has never been one.
    pub async fn ensure_first_frontdoor(
        &self,
        spec: &FrontdoorSpec,
        context: &WriteContext,
    ) -> Result<Option<FrontdoorRow>> {
        let spec = spec.clone();
        self.write(context, move |write| {
            async move {
                let any = sqlx::query("SELECT 1 FROM frontdoor LIMIT 1").fetch_optional(write.db()).await?;
                if any.is_some() { Ok(None) } else { write.insert_frontdoor(spec).await.map(Some) }
            }
            .boxed()
        })
        .await
    }

    /// The last write wins, unless the context expects a state.
    pub async fn replace_frontdoor(
        &self,
        id: FrontdoorId,
        spec: &FrontdoorSpec,
        context: &WriteContext,
    ) -> Result<FrontdoorRow> {
        let spec = spec.clone();
        self.write(context, move |write| write.replace_frontdoor(id, spec).boxed()).await
    }

    /// Fails with [`StoreError::InUse`] while it has tunnels, shares or environments.
    pub async fn delete_frontdoor(&self, id: FrontdoorId, context: &WriteContext) -> Result<()> {
        self.write(context, move |write| write.delete_frontdoor(id).boxed()).await
    }

    /// The organizations that have a Frontdoor, `most` at most.
    pub async fn organizations(&self, most: u32) -> Result<Vec<String>> {
        let rows = sqlx::query(
            "SELECT DISTINCT organization FROM frontdoor WHERE deleted_at IS NULL ORDER BY organization LIMIT $1",
        )
        .bind(i64::from(most))
        .fetch_all(&self.database.readers)
        .await?;
        rows.iter().map(|row| text(row, "organization")).collect()
    }

    pub async fn frontdoor(&self, id: FrontdoorId) -> Result<Option<FrontdoorRow>> {
        let select = "SELECT * FROM frontdoor WHERE id = $1 AND deleted_at IS NULL";
        let key = id.to_string();
        self.database.cache.get(key.clone(), self.find(select, &[&key], FrontdoorRow::read)).await
    }
}

impl Write {
    async fn replace_frontdoor(&mut self, id: FrontdoorId, spec: FrontdoorSpec) -> Result<FrontdoorRow> {
        self.check_frontdoor(id).await?;
        let row = sqlx::query(
            "UPDATE frontdoor SET default_namespace = $1, ipsec_shares_enabled = $2, updated_at = $3 \
             WHERE id = $4 RETURNING *",
        )
        .bind(spec.default_namespace.as_str().to_owned())
        .bind(i64::from(spec.ipsec_shares_enabled))
        .bind(self.at())
        .bind(id.to_string())
        .fetch_one(self.db())
        .await?;
        self.record(id, Action::Update, execution(&id)).await?;
        FrontdoorRow::read(&row)
    }

    async fn delete_frontdoor(&mut self, id: FrontdoorId) -> Result<()> {
        self.check_frontdoor(id).await?;
        let user = sqlx::query(
            "SELECT id FROM ipsec_share WHERE frontdoor = $1 AND status <> 'DELETED' \
             UNION ALL SELECT id FROM ipsec_tunnel WHERE frontdoor = $1 AND status <> 'DELETED' \
             UNION ALL SELECT id FROM environment WHERE frontdoor = $1 AND deleted_at IS NULL LIMIT 1",
        )
        .bind(id.to_string())
        .fetch_optional(self.db())
        .await?;
        if let Some(user) = user {
            return Err(StoreError::InUse { with: user.try_get(0)? });
        }
        sqlx::query("UPDATE frontdoor SET deleted_at = $1, updated_at = $1 WHERE id = $2")
            .bind(self.at())
            .bind(id.to_string())
            .execute(self.db())
            .await?;
        self.record(id, Action::Delete, execution(&id)).await
    }

    /// The Frontdoor is live, and in the state that the context expects. It stays so, since writes follow one another.
    async fn check_frontdoor(&mut self, id: FrontdoorId) -> Result<()> {
        let row = sqlx::query("SELECT updated_at FROM frontdoor WHERE id = $1 AND deleted_at IS NULL")
            .bind(id.to_string())
            .fetch_optional(self.db())
            .await?;
        self.context.check(time(&row.ok_or(StoreError::Missing)?, "updated_at")?)
    }

    async fn insert_frontdoor(&mut self, spec: FrontdoorSpec) -> Result<FrontdoorRow> {
        let id = FrontdoorId::new((self.context.fresh)());
        let row = sqlx::query(
            "INSERT INTO frontdoor (id, organization, default_namespace, ipsec_shares_enabled, created_at, \
             updated_at, created_by) VALUES ($1, $2, $3, $4, $5, $5, $6) RETURNING *",
        )
        .bind(id.to_string())
        .bind(spec.organization.clone())
        .bind(spec.default_namespace.as_str())
        .bind(i64::from(spec.ipsec_shares_enabled))
        .bind(self.at())
        .bind(self.context.actor.clone())
        .fetch_one(self.db())
        .await?;
        self.record(id, Action::Create, execution(&id)).await?;
        FrontdoorRow::read(&row)
    }
}

fn execution(id: &FrontdoorId) -> Execution<'_> {
    Execution { resource_type: ResourceType::Frontdoor, resource: id, generation: None }
}

pub(crate) static LISTING: Listing = Listing::new("f.*", "frontdoor f", "f.id").only("f.deleted_at IS NULL");

pub mod columns {
    crate::list_column::columns! {
        ID = Text("f.id");
        ORGANIZATION = Text("f.organization");
        DEFAULT_NAMESPACE = Text("f.default_namespace");
        IPSEC_SHARES_ENABLED = Boolean("f.ipsec_shares_enabled");
        CREATED_AT = Time("f.created_at");
        UPDATED_AT = Time("f.updated_at");
        CREATED_BY = Text("f.created_by");
    }
}
