//! API accounts: credentials of programs. Only the SHA-256 of a secret is stored. A revoked account is hidden from the
//! API, and kept for the audit trail.

use crate::{
    Action, ListRequest, NamedRow, Page, Reach, ResourceType, Result, Store, StoreError, WriteContext, claim,
    execution::Execution,
    list::Listing,
    quota,
    row::{rows, specs},
    statement::Assignments,
    write::Write,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use wicketgate_model::{ApiAccountId, FrontdoorId, QuotaKind};

rows! {
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ApiAccountRow {
        /// Its client id.
        pub id: ApiAccountId,
        pub spec: ApiAccountSpec,
        pub created_at: Timestamp,
        pub created_by: String,
    }
}

specs! {
    /// What a caller decides about an account.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ApiAccountSpec {
        pub organization: String,
        pub name: String,
        /// As they are written, in the order they were given.
        pub scopes: Vec<String>,
        /// The Frontdoors of the organization that it is limited to; `None` for all.
        pub frontdoors: Option<Vec<FrontdoorId>>,
        /// Of its secret, which has 256 random bits: nothing slower is needed to keep it from being guessed.
        pub secret_sha256: [u8; 32],
        /// `None` if it never ends.
        pub expires_at: Option<Timestamp>,
    }
}

impl ApiAccountRow {
    pub fn reach(&self) -> Reach {
        match &self.spec.frontdoors {
            Some(named) => Reach::Named(named.clone()),
            None => Reach::Organization(self.spec.organization.clone()),
        }
    }
}

impl ApiAccountRow {
    pub fn named(&self) -> NamedRow {
        NamedRow::new(&self.id, &self.spec.name)
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
        self.list(&LISTING, scope, request).await
    }

    /// Recorded in its organization, and in every Frontdoor that it reaches: each has an audit trail of its accesses.
    pub async fn create_api_account(
        &self,
        spec: &ApiAccountSpec,
        context: &WriteContext,
    ) -> Result<ApiAccountRow> {
        let spec = spec.clone();
        self.write(context, move |write| write.create_api_account(spec).boxed()).await
    }

    /// `None` once it is revoked. It may have expired.
    pub async fn api_account(&self, id: ApiAccountId) -> Result<Option<ApiAccountRow>> {
        self.cached("c.id = $1", id.to_string()).await
    }

    /// As [`Store::api_account`]. The lookup's time depends on a hash, whose digits a caller cannot choose.
    pub async fn api_account_with_secret(&self, secret_sha256: &[u8; 32]) -> Result<Option<ApiAccountRow>> {
        self.cached("c.secret_sha256 = $1", hex::encode(secret_sha256)).await
    }

    async fn cached(&self, condition: &str, key: String) -> Result<Option<ApiAccountRow>> {
        self.database.cache.get(key.clone(), self.find(LISTING.find(condition), &[&key])).await
    }

    /// From the next request on, its secret and all its tokens are refused, and so are those of the accounts that it
    /// created, that these created, and so on. The enrolment codes and handover links of all of them end.
    pub async fn revoke_api_account(&self, id: ApiAccountId, context: &WriteContext) -> Result<()> {
        self.write(context, move |write| write.revoke_api_account(id).boxed()).await
    }
}

/// The live account and those that go back to it.
const REVOKE: &str = "WITH RECURSIVE ended (id) AS ( \
         SELECT id FROM api_account WHERE id = $2 AND revoked_at IS NULL \
         UNION SELECT a.id FROM api_account a JOIN ended e ON a.created_by = e.id WHERE a.revoked_at IS NULL) \
     UPDATE api_account SET revoked_at = $1 WHERE id IN (SELECT id FROM ended) RETURNING *";

/// What revoked accounts have given to others, and what could still be used: enrolment codes and handover links.
const END_GRANTS: &[&str] = &[
    "UPDATE enrollment SET expires_at = $1 WHERE agent IS NULL AND expires_at > $1 \
     AND created_by IN (SELECT id FROM api_account WHERE revoked_at IS NOT NULL)",
    "UPDATE handover_link SET revoked_at = $1 WHERE revoked_at IS NULL \
     AND created_by IN (SELECT id FROM api_account WHERE revoked_at IS NOT NULL)",
];

impl Write {
    async fn revoke_api_account(&mut self, id: ApiAccountId) -> Result<()> {
        let mut revoked: Vec<ApiAccountRow> = self.tx.all(REVOKE, &[&self.context.at, &id]).await?;
        if revoked.is_empty() {
            return Err(StoreError::Missing);
        }
        for end in END_GRANTS {
            self.tx.execute(*end, &[&self.context.at]).await?;
        }
        revoked.sort_by_key(|account| account.id);
        for account in &revoked {
            self.record_account(account, Action::Delete).await?;
        }
        Ok(())
    }

    async fn create_api_account(&mut self, spec: ApiAccountSpec) -> Result<ApiAccountRow> {
        self.need_room_for(&spec).await?;
        let id = ApiAccountId::new((self.context.fresh)());
        let set = Assignments::of(&spec).and(&[
            ("id", &id),
            ("created_at", &self.context.at),
            ("created_by", &self.context.actor),
        ]);
        let row = self.tx.row(set.insert("api_account", "RETURNING *")?).await?;
        let account = row.ok_or(StoreError::Stale)?;
        self.record_account(&account, Action::Create).await?;
        Ok(account)
    }

    async fn record_account(&mut self, account: &ApiAccountRow, action: Action) -> Result<()> {
        // Also if the account reaches no Frontdoor.
        claim::mark(&mut self.tx, self.context.claim.as_deref(), self.context.process).await?;
        self.deferred.forgets = true;
        let organization = &account.spec.organization;
        let on = || Execution::of(ResourceType::ApiAccount, &account.id);
        let whole = Execution { organization: Some(organization.as_str()), ..on() };
        whole.insert(&mut self.tx, &self.context, None, action).await?;
        for frontdoor in self.reached(&account.spec).await? {
            self.record(frontdoor, action, on()).await?;
        }
        Ok(())
    }

    async fn reached(&mut self, spec: &ApiAccountSpec) -> Result<Vec<FrontdoorId>> {
        if let Some(named) = &spec.frontdoors {
            return Ok(named.clone());
        }
        let select = "SELECT id FROM frontdoor WHERE organization = $1 AND deleted_at IS NULL ORDER BY id";
        Ok(self.tx.all(select, &[&spec.organization]).await?.into_iter().map(|(id,)| id).collect())
    }

    /// The account takes a place in each Frontdoor that it reaches; without one, in its organization.
    async fn need_room_for(&mut self, spec: &ApiAccountSpec) -> Result<()> {
        const KIND: QuotaKind = QuotaKind::ApiAccounts;
        let reached = self.reached(spec).await?;
        self.need_room(&reached, KIND).await?;
        if !reached.is_empty() {
            return Ok(());
        }
        let count = "SELECT COUNT(*) FROM api_account WHERE organization = $1 AND revoked_at IS NULL";
        let (used,): (u64,) = self.tx.one(count, &[&spec.organization]).await?;
        quota::check(used, self.context.quotas.or_default(KIND), KIND, None)
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
