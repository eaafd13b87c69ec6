//! API accounts: credentials of programs. Only the SHA-256 of a secret is stored. A revoked account is hidden from the
//! API, and kept for the audit trail.

use crate::{
    Action, ListRequest, Page, Reach, ResourceType, Result, Store, StoreError, WriteContext, claim,
    columns::{hex, parsed, text, time, time_option, unhex},
    execution::{Execution, Owner},
    list::Listing,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use sqlx::{Row, any::AnyRow};
use wicketgate_model::{ApiAccountId, FrontdoorId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiAccountRow {
    /// Its client id.
    pub id: ApiAccountId,
    pub organization: String,
    pub name: String,
    /// As they are written, in the order they were given.
    pub scopes: Vec<String>,
    /// The Frontdoors that it is limited to; `None` for all of its organization.
    pub frontdoors: Option<Vec<FrontdoorId>>,
    /// Of its secret, which has 256 random bits: nothing slower is needed to keep it from being guessed.
    pub secret_sha256: [u8; 32],
    /// `None` if it never ends.
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub created_by: String,
}

/// An account to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApiAccount {
    pub organization: String,
    pub name: String,
    pub scopes: Vec<String>,
    /// Live ones of the organization, if any are named.
    pub frontdoors: Option<Vec<FrontdoorId>>,
    pub secret_sha256: [u8; 32],
    pub expires_at: Option<Timestamp>,
}

impl ApiAccountRow {
    pub fn reach(&self) -> Reach {
        match &self.frontdoors {
            Some(named) => Reach::Named(named.clone()),
            None => Reach::Organization(self.organization.clone()),
        }
    }

    pub(crate) fn read(row: &AnyRow) -> Result<Self> {
        let frontdoors: Option<String> = row.try_get("frontdoors")?;
        let frontdoors = frontdoors.map(|ids| {
            let id = |id: &str| id.parse().map_err(|_| StoreError::Corrupt { column: "frontdoors" });
            ids.split(' ').map(id).collect()
        });
        Ok(Self {
            id: parsed(row, "id")?,
            organization: text(row, "organization")?,
            name: text(row, "name")?,
            scopes: text(row, "scopes")?.split(' ').map(str::to_owned).collect(),
            frontdoors: frontdoors.transpose()?,
            secret_sha256: unhex(&text(row, "secret_sha256")?)
                .ok_or(StoreError::Corrupt { column: "secret_sha256" })?,
            expires_at: time_option(row, "expires_at")?,
            created_at: time(row, "created_at")?,
            created_by: text(row, "created_by")?,
        })
    }
}

impl Store {
    /// The accounts of one organization, or all; without revoked ones.
    pub async fn api_accounts(
        &self,
        organization: Option<&str>,
        request: &ListRequest,
    ) -> Result<Page<ApiAccountRow>> {
        let scope = organization.map(|o| (&columns::ORGANIZATION, vec![o.to_owned()]));
        self.list(&LISTING, scope, request, ApiAccountRow::read).await
    }

    /// Recorded in its organization, and in every Frontdoor that it reaches: each has an audit trail of its accesses.
    pub async fn create_api_account(
        &self,
        new: &NewApiAccount,
        context: &WriteContext,
    ) -> Result<ApiAccountRow> {
        let new = new.clone();
        self.write(context, move |write| write.create_api_account(new).boxed()).await
    }

    /// `None` once it is revoked. It may have expired.
    pub async fn api_account(&self, id: ApiAccountId) -> Result<Option<ApiAccountRow>> {
        let select = "SELECT * FROM api_account WHERE id = $1 AND revoked_at IS NULL";
        self.cached(select, id.to_string()).await
    }

    /// As [`Store::api_account`]. The lookup's time depends on a hash, whose digits a caller cannot choose.
    pub async fn api_account_with_secret(&self, secret_sha256: &[u8; 32]) -> Result<Option<ApiAccountRow>> {
        let select = "SELECT * FROM api_account WHERE secret_sha256 = $1 AND revoked_at IS NULL";
        self.cached(select, hex(secret_sha256)).await
    }

    async fn cached(&self, select: &'static str, key: String) -> Result<Option<ApiAccountRow>> {
        self.database.cache.get(key.clone(), self.find(select, &[&key], ApiAccountRow::read)).await
    }

    /// From the next request on, its secret and all its tokens are refused.
    pub async fn revoke_api_account(&self, id: ApiAccountId, context: &WriteContext) -> Result<()> {
        self.write(context, move |write| {
            async move {
                let row = sqlx::query(
                    "UPDATE api_account SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL RETURNING *",
                )
                .bind(write.at())
                .bind(id.to_string())
                .fetch_optional(write.db())
                .await?;
                let account = ApiAccountRow::read(&row.ok_or(StoreError::Missing)?)?;
                write.record_account(&account, Action::Delete).await
            }
            .boxed()
        })
        .await
    }
}

impl Write {
    async fn create_api_account(&mut self, new: NewApiAccount) -> Result<ApiAccountRow> {
        let frontdoors = new.frontdoors.as_ref();
        let row = sqlx::query(
            "INSERT INTO api_account (id, organization, name, scopes, frontdoors, secret_sha256, expires_at, \
             created_at, created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING *",
        )
        .bind(ApiAccountId::new((self.context.fresh)()).to_string())
        .bind(new.organization)
        .bind(new.name)
        .bind(new.scopes.join(" "))
        .bind(frontdoors.map(|f| f.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")))
        .bind(hex(&new.secret_sha256))
        .bind(new.expires_at.map(Timestamp::as_microsecond))
        .bind(self.at())
        .bind(self.context.actor.clone())
        .fetch_one(self.db())
        .await?;
        let account = ApiAccountRow::read(&row)?;
        self.record_account(&account, Action::Create).await?;
        Ok(account)
    }

    async fn record_account(&mut self, account: &ApiAccountRow, action: Action) -> Result<()> {
        // Also if the account reaches no Frontdoor.
        claim::mark(&mut self.tx, self.context.claim.as_deref(), self.context.process).await?;
        self.deferred.forgets = true;
        let on =
            || Execution { resource_type: ResourceType::ApiAccount, resource: &account.id, generation: None };
        on().insert(&mut self.tx, &self.context, Owner::Organization(&account.organization), action).await?;
        let reached = match &account.frontdoors {
            Some(named) => named.clone(),
            None => {
                let rows = sqlx::query(
                    "SELECT id FROM frontdoor WHERE organization = $1 AND deleted_at IS NULL ORDER BY id",
                )
                .bind(account.organization.clone())
                .fetch_all(self.db())
                .await?;
                rows.iter().map(|row| parsed(row, "id")).collect::<Result<_>>()?
            }
        };
        for frontdoor in reached {
            self.record(frontdoor, action, on()).await?;
        }
        Ok(())
    }
}

pub(crate) static LISTING: Listing =
    Listing::new("c.*", "api_account c", "c.id").only("c.revoked_at IS NULL");

pub mod columns {
    /// Words separated by spaces, as a JSON list without its brackets.
    macro_rules! words {
        ($column:literal) => {
            concat!("('\"' || REPLACE(", $column, ", ' ', '\",\"') || '\"')")
        };
    }

    crate::list_column::columns! {
        ID = Text("c.id");
        NAME = Text("c.name");
        ORGANIZATION = Text("c.organization");
        SCOPES = List(words!("c.scopes"));
        FRONTDOORS = List(words!("c.frontdoors")).optional();
        EXPIRES_AT = Time("c.expires_at").optional();
        CREATED_AT = Time("c.created_at");
        CREATED_BY = Text("c.created_by");
    }
}
