//! Frontdoors. A Frontdoor is a customer's collection of tunnels, environments and shares.

use crate::{
    Action, ListRequest, NamedRow, Page, ResourceType, Result, Store, StoreError, WriteContext,
    execution::Execution,
    list::Listing,
    quota,
    row::{rows, specs},
    statement::Assignments,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use wicketgate_model::{FrontdoorId, NamespaceName, QuotaKind, Quotas};

rows! {
    #[derive(Debug, Clone)]
    pub struct FrontdoorRow {
        pub id: FrontdoorId,
        pub spec: FrontdoorSpec,
        pub created_at: Timestamp,
        pub updated_at: Timestamp,
        pub created_by: String,
    }
}

specs! {
    /// What a caller decides about a Frontdoor.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct FrontdoorSpec {
        /// Fixed once the Frontdoor is created.
        pub organization: String,
        pub default_namespace: NamespaceName,
        pub ipsec_shares_enabled: bool,
        /// The limits that differ from the installation's.
        pub quotas: Quotas,
    }
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
            Self::Organization(own) => *own == frontdoor.spec.organization,
            Self::Named(named) => named.contains(&frontdoor.id),
        }
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
        self.list(&LISTING, scope, request).await
    }

    pub async fn create_frontdoor(
        &self,
        spec: &FrontdoorSpec,
        context: &WriteContext,
    ) -> Result<FrontdoorRow> {
        let spec = spec.clone();
        self.write(context, move |write| {
            async move {
                write.need_room_in(&spec.organization).await?;
                write.insert_frontdoor(spec).await
            }
            .boxed()
        })
        .await
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
                let any: Option<(String,)> = write.tx.find("SELECT id FROM frontdoor LIMIT 1", &[]).await?;
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
        let select = "SELECT DISTINCT organization FROM frontdoor WHERE deleted_at IS NULL \
                      ORDER BY organization LIMIT $1";
        Ok(self.all(select, &[&most]).await?.into_iter().map(|(organization,)| organization).collect())
    }

    /// A Frontdoor of which only the records are left. They are kept for as long as other records.
    pub async fn deleted_frontdoor(&self, id: FrontdoorId) -> Result<Option<FrontdoorRow>> {
        self.find("SELECT f.* FROM frontdoor f WHERE f.id = $1 AND f.deleted_at IS NOT NULL", &[&id]).await
    }

    pub async fn frontdoor(&self, id: FrontdoorId) -> Result<Option<FrontdoorRow>> {
        self.database.cache.get(id.to_string(), self.find(LISTING.find("f.id = $1"), &[&id])).await
    }
}

impl Write {
    async fn replace_frontdoor(&mut self, id: FrontdoorId, spec: FrontdoorSpec) -> Result<FrontdoorRow> {
        let before = self.live_frontdoor(id).await?;
        // The organization is fixed.
        let spec = FrontdoorSpec { organization: before.spec.organization, ..spec };
        if spec.ipsec_shares_enabled != before.spec.ipsec_shares_enabled {
            self.touch_served(id).await?;
        }
        let set = Assignments::of(&spec).and(&[("updated_at", &self.context.at)]);
        let row = self.tx.row(set.update("frontdoor", "", &id, "RETURNING *")?).await?;
        self.record_frontdoor(row.ok_or(StoreError::Stale)?, Action::Update).await
    }

    /// Has the reconciler look at everything that gateways serve of the Frontdoor.
    async fn touch_served(&mut self, id: FrontdoorId) -> Result<()> {
        let tunnels = "UPDATE ipsec_tunnel SET revision = $1 WHERE frontdoor = $2 AND status <> 'DELETED'";
        self.tx.execute(tunnels, &[&self.revision, &id]).await?;
        let shares = "UPDATE ipsec_share SET revision = $1 WHERE frontdoor = $2 AND status <> 'DELETED'";
        self.tx.execute(shares, &[&self.revision, &id]).await.map(drop)
    }

    async fn delete_frontdoor(&mut self, id: FrontdoorId) -> Result<()> {
        let before = self.live_frontdoor(id).await?;
        let user = "SELECT id, name FROM ipsec_share WHERE frontdoor = $1 AND status <> 'DELETED' \
                    UNION ALL SELECT id, name FROM ipsec_tunnel WHERE frontdoor = $1 AND status <> 'DELETED' \
                    UNION ALL SELECT id, name FROM environment WHERE frontdoor = $1 AND deleted_at IS NULL LIMIT 1";
        if let Some((id, name)) = self.tx.find(user, &[&id]).await? {
            return Err(StoreError::InUse { with: NamedRow { id, name } });
        }
        let delete = "UPDATE frontdoor SET deleted_at = $1, updated_at = $1 WHERE id = $2";
        self.tx.execute(delete, &[&self.context.at, &id]).await?;
        self.record_frontdoor(before, Action::Delete).await.map(|_| ())
    }

    /// The Frontdoor, live and in the state that the context expects. It stays so, since writes follow one another.
    async fn live_frontdoor(&mut self, id: FrontdoorId) -> Result<FrontdoorRow> {
        let row: Option<FrontdoorRow> = self.tx.find(LISTING.find("f.id = $1"), &[&id]).await?;
        let row = row.ok_or(StoreError::Missing)?;
        self.context.check(row.updated_at).map(|()| row)
    }

    /// Fails with [`StoreError::QuotaExceeded`] unless the organization may have another Frontdoor.
    async fn need_room_in(&mut self, organization: &String) -> Result<()> {
        const KIND: QuotaKind = QuotaKind::Frontdoors;
        let count = "SELECT COUNT(*) FROM frontdoor WHERE organization = $1 AND deleted_at IS NULL";
        let (used,): (u64,) = self.tx.one(count, &[organization]).await?;
        quota::check(used, self.context.quotas.or_default(KIND), KIND, None)
    }

    async fn insert_frontdoor(&mut self, spec: FrontdoorSpec) -> Result<FrontdoorRow> {
        let id = FrontdoorId::new((self.context.fresh)());
        let at = self.context.at;
        let set = Assignments::of(&spec).and(&[
            ("id", &id),
            ("created_at", &at),
            ("updated_at", &at),
            ("created_by", &self.context.actor),
        ]);
        let row = self.tx.row(set.insert("frontdoor", "RETURNING *")?).await?;
        self.record_frontdoor(row.ok_or(StoreError::Stale)?, Action::Create).await
    }

    async fn record_frontdoor(&mut self, row: FrontdoorRow, action: Action) -> Result<FrontdoorRow> {
        let organization = Some(row.spec.organization.as_str());
        let on = Execution { organization, ..Execution::of(ResourceType::Frontdoor, &row.id) };
        self.record(row.id, action, on).await?;
        Ok(row)
    }
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
