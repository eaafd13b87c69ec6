//! API accounts: credentials of programs. Only the SHA-256 of a secret is stored. A revoked account is hidden from the
//! API, and kept for the audit trail.

use crate::{
    Action, DatabaseFault, ListRequest, NamedRow, Page, Reach, ResourceType, Result, Store, StoreError,
    WriteContext, claim,
    execution::{self, Execution, Record},
    list::Listing,
    quota,
    row::{rows, specs},
    statement::Assignments,
    write::Write,
    writer::Revises,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};
use tokio::time::sleep;
use tracing::error;
use wicketgate_model::{ApiAccountId, FrontdoorId, QuotaKind};
use wicketgate_system::backoff::Backoff;

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
    /// created, that these created, and so on. The unused enrolment codes and the handover links of all of them end. All of
    /// this is one transaction, which has the record of the first account; the records of the others follow in transactions of
    /// their own, also if the caller goes away.
    pub async fn revoke_api_account(&self, id: ApiAccountId, context: &WriteContext) -> Result<()> {
        let (store, own) = (self.clone(), context.clone());
        let all = async move {
            let revoked = store.write(&own, move |write| write.revoke_api_account(id).boxed()).await;
            if let Err(error) = &revoked
                && matches!(error.fault(), DatabaseFault::Unconfirmed | DatabaseFault::Late)
            {
                error!(account.id = %id, process = %own.process, "an API account may be revoked without the records of what ended with it");
            }
            store.record_revoked(revoked?, &own).await;
            Ok(())
        };
        tokio::spawn(all).await.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()))
    }

    /// Records that these were revoked, with the account that they go back to.
    async fn record_revoked(&self, ended: Vec<Recorded>, context: &WriteContext) {
        let (mut pauses, mut left) = (Backoff::new(PAUSE, LONGEST_PAUSE), ATTEMPTS);
        for part in ended.chunks(RECORDS) {
            while let Err(error) = self.try_record_revoked(part.to_vec(), context.clone()).await {
                left = left.saturating_sub(1);
                if left == 0 || error.fault() == DatabaseFault::Unconfirmed {
                    error!(
                        %error, process = %context.process, records = part.len(),
                        "an API account is revoked, and records are missing in the audit trail: those of what it had created and \
                         what ended with it. Repair the database"
                    );
                    break;
                }
                sleep(pauses.doubled()).await;
            }
        }
    }

    async fn try_record_revoked(&self, part: Vec<Recorded>, context: WriteContext) -> Result<()> {
        // By the server, since the account may have revoked itself. The records name its actor.
        let server = WriteContext::new("server", context.at, context.fresh);
        let made = self.writer.write(&server, Revises::Nothing, move |write| {
            async move {
                let records: Vec<_> = part.iter().map(|of| of.record(&context, Action::Delete)).collect();
                execution::insert_all(&mut write.tx, &records).await
            }
            .boxed()
        });
        made.await
    }
}

/// Records in one unit of work, which takes milliseconds: units of other callers run between them.
const RECORDS: usize = 512;
/// Attempts that may fail, of all units, while the database is not available for some seconds.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// An account, in the record of its organization or of a Frontdoor that it reaches; or what it has given to others.
#[derive(Debug, Clone)]
struct Recorded {
    kind: ResourceType,
    /// Its id.
    resource: String,
    frontdoor: Option<FrontdoorId>,
    /// Of the record of an organization.
    organization: Option<String>,
}

impl Recorded {
    fn record(&self, context: &WriteContext, action: Action) -> Record {
        let organization = self.organization.as_deref();
        let on = Execution { organization, ..Execution::of(self.kind, &self.resource) };
        on.record(context, self.frontdoor, action)
    }
}

/// The live account and those that go back to it.
const REVOKE: &str = "WITH RECURSIVE ended (id) AS ( \
         SELECT id FROM api_account WHERE id = $2 AND revoked_at IS NULL \
         UNION SELECT a.id FROM api_account a JOIN ended e ON a.created_by = e.id WHERE a.revoked_at IS NULL) \
     UPDATE api_account SET revoked_at = $1 WHERE id IN (SELECT id FROM ended) RETURNING *";

/// What the accounts that were just revoked have given to others, and what could still be used: enrolment codes and handover links.
const END_GRANTS: &[(ResourceType, &str)] = &[
    (
        ResourceType::Enrollment,
        "UPDATE enrollment SET expires_at = $1 WHERE agent IS NULL AND expires_at > $1 \
         AND created_by IN (SELECT id FROM api_account WHERE revoked_at = $1) RETURNING id, frontdoor",
    ),
    (
        ResourceType::HandoverLink,
        "UPDATE handover_link SET revoked_at = $1 WHERE revoked_at IS NULL \
         AND created_by IN (SELECT id FROM api_account WHERE revoked_at = $1) RETURNING id, frontdoor",
    ),
];

impl Write {
    /// Returns the records that are still to be written.
    async fn revoke_api_account(&mut self, id: ApiAccountId) -> Result<Vec<Recorded>> {
        let mut revoked: Vec<ApiAccountRow> = self.tx.all(REVOKE, &[&self.context.at, &id]).await?;
        revoked.sort_by_key(|account| account.id);
        let Some(first) = revoked.iter().position(|account| account.id == id) else {
            return Err(StoreError::Missing);
        };
        let mut given = Vec::new();
        for (kind, end) in END_GRANTS {
            let mut ended: Vec<(String, FrontdoorId)> = self.tx.all(*end, &[&self.context.at]).await?;
            ended.sort();
            let of = |(resource, frontdoor)| Recorded {
                kind: *kind,
                resource,
                frontdoor: Some(frontdoor),
                organization: None,
            };
            given.extend(ended.into_iter().map(of));
        }
        let first = revoked.remove(first);
        // It says how many other records there are, which may be lost with the process.
        let with = match (revoked.len(), given.len()) {
            (0, 0) => None,
            (accounts, given) => Some(format!(
                "with it ended {accounts} accounts that go back to it, and {given} enrolment codes and handover links"
            )),
        };
        self.record_account(&first, Action::Delete, with).await?;
        Ok(self.recorded(&revoked).await?.into_iter().chain(given).collect())
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
        self.record_account(&account, Action::Create, None).await?;
        Ok(account)
    }

    async fn record_account(
        &mut self,
        account: &ApiAccountRow,
        action: Action,
        message: Option<String>,
    ) -> Result<()> {
        // Also if the account reaches no Frontdoor.
        claim::mark(&mut self.tx, self.context.claim.as_deref(), self.context.process).await?;
        self.deferred.forgets = true;
        let all = self.recorded(std::slice::from_ref(account)).await?;
        let record = |of: &Recorded| {
            let record = of.record(&self.context, action);
            // In the record of the organization, whose accounts they are.
            let message = message.clone().filter(|_| of.organization.is_some());
            if let Some(message) = message { record.with_message(message) } else { record }
        };
        let records: Vec<_> = all.iter().map(record).collect();
        execution::insert_all(&mut self.tx, &records).await
    }

    /// The records of an action on each of the accounts.
    async fn recorded(&mut self, accounts: &[ApiAccountRow]) -> Result<Vec<Recorded>> {
        let mut of_organization: BTreeMap<&str, Vec<FrontdoorId>> = BTreeMap::new();
        let mut all = Vec::new();
        for ApiAccountRow { id, spec, .. } in accounts {
            let on = |frontdoor, organization| Recorded {
                kind: ResourceType::ApiAccount,
                resource: id.to_string(),
                frontdoor,
                organization,
            };
            all.push(on(None, Some(spec.organization.clone())));
            let reached = match &spec.frontdoors {
                Some(named) => named,
                // Accounts are created by those of their own organization: there is one.
                None => match of_organization.entry(&spec.organization) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => new.insert(self.reached(spec).await?),
                },
            };
            all.extend(reached.iter().map(|frontdoor| on(Some(*frontdoor), None)));
        }
        Ok(all)
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
