//! The record of every write and of every read of a key: its actor, action, resource and result. It is the audit trail.

use crate::{
    ListRequest, Page, Result, Store, StoreError, WriteContext,
    columns::{big, parsed, text, time, time_option},
    list::{Listing, of},
};
use jiff::Timestamp;
use sqlx::{AnyConnection, Row, any::AnyRow};
use wicketgate_model::{ExecutionId, FrontdoorId, Generation, text_enum};

text_enum!(
    /// The recorded action.
    Action { Create = "CREATE", Update = "UPDATE", Delete = "DELETE", RotateKey = "ROTATE_KEY", ReadKey = "READ_KEY", Enrol = "ENROL" }
);
text_enum!(
    /// The type of the resource that an action is about.
    ResourceType {
        Frontdoor = "frontdoor",
        Environment = "environment",
        Agent = "agent",
        Enrollment = "enrollment",
        Tunnel = "ipsec-tunnel",
        Share = "ipsec-share",
        ApiAccount = "api-account",
    }
);
text_enum!(
    /// The state of an execution.
    ExecutionStatus { Running = "RUNNING", Success = "SUCCESS", Failed = "FAILED" }
);

#[derive(Debug, Clone)]
pub struct ExecutionRow {
    pub id: ExecutionId,
    /// The same for all executions of one request.
    pub process: ExecutionId,
    /// `None` for an organization's own resources.
    pub frontdoor: Option<FrontdoorId>,
    /// Of an organization's own resources.
    pub organization: Option<String>,
    pub actor: String,
    pub action: Action,
    pub resource_type: ResourceType,
    pub resource: String,
    pub status: ExecutionStatus,
    /// Why it failed.
    pub message: Option<String>,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

impl ExecutionRow {
    pub(crate) fn read(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: parsed(row, "id")?,
            process: parsed(row, "process")?,
            frontdoor: match text(row, "frontdoor")?.as_str() {
                NO_FRONTDOOR => None,
                _ => Some(parsed(row, "frontdoor")?),
            },
            organization: row.try_get("organization")?,
            actor: text(row, "actor")?,
            action: parsed(row, "action")?,
            resource_type: parsed(row, "resource_type")?,
            resource: text(row, "resource")?,
            status: parsed(row, "status")?,
            message: row.try_get("message")?,
            created_at: time(row, "created_at")?,
            finished_at: time_option(row, "finished_at")?,
        })
    }
}

const NO_FRONTDOOR: &str = "";

/// The owner of an execution's record. A Frontdoor's record of itself is its organization's too.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner<'a> {
    Frontdoor(FrontdoorId),
    Organization(&'a str),
}

/// The subject of an execution. Work for a gateway is `RUNNING` until its status is decided; all other work is done at
/// once.
pub(crate) struct Execution<'a> {
    pub(crate) resource_type: ResourceType,
    pub(crate) resource: &'a (dyn std::fmt::Display + Sync),
    /// The generation that the write made, if a gateway has to follow.
    pub(crate) generation: Option<Generation>,
}

/// Ten values, and then Frontdoor and organization: `$11` is the owner.
macro_rules! insert {
    ($values:literal, $owner:literal) => {
        concat!(
            "INSERT INTO execution (id, process, actor, action, resource_type, resource, generation, status, \
             created_at, finished_at, frontdoor, organization) ",
            $values,
            " $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, ",
            $owner
        )
    };
}

impl Execution<'_> {
    pub(crate) async fn insert(
        self,
        db: &mut AnyConnection,
        context: &WriteContext,
        owner: Owner<'_>,
        action: Action,
    ) -> Result<()> {
        let (insert, whose) = match owner {
            Owner::Frontdoor(id) if self.is_new_in_its_frontdoor(action) => (
                insert!("SELECT", "$11, NULL FROM frontdoor f WHERE f.id = $11 AND f.deleted_at IS NULL"),
                id.to_string(),
            ),
            Owner::Frontdoor(id) if self.resource_type == ResourceType::Frontdoor => {
                (insert!("SELECT", "$11, f.organization FROM frontdoor f WHERE f.id = $11"), id.to_string())
            }
            Owner::Frontdoor(id) => (insert!("VALUES (", "$11, NULL)"), id.to_string()),
            Owner::Organization(name) => (insert!("VALUES (", "'', $11)"), name.to_owned()),
        };
        let status =
            if self.generation.is_some() { ExecutionStatus::Running } else { ExecutionStatus::Success };
        let done = sqlx::query(insert)
            .bind(ExecutionId::new((context.fresh)()).to_string())
            .bind(context.process.to_string())
            .bind(context.actor.clone())
            .bind(action.as_str())
            .bind(self.resource_type.as_str())
            .bind(self.resource.to_string())
            .bind(big(self.generation.map_or(0, Generation::get)))
            .bind(status.as_str())
            .bind(context.at.as_microsecond())
            .bind(self.generation.is_none().then(|| context.at.as_microsecond()))
            .bind(whose)
            .execute(db)
            .await?;
        match owner {
            Owner::Frontdoor(id) if done.rows_affected() == 0 => Err(StoreError::NoFrontdoor(id)),
            _ => Ok(()),
        }
    }

    /// Nothing is created in a deleted Frontdoor: no request could remove it.
    fn is_new_in_its_frontdoor(&self, action: Action) -> bool {
        matches!(action, Action::Create | Action::Enrol)
            && !matches!(self.resource_type, ResourceType::Frontdoor | ResourceType::ApiAccount)
    }
}

impl Store {
    pub async fn execution(&self, frontdoor: FrontdoorId, id: ExecutionId) -> Result<Option<ExecutionRow>> {
        let row = sqlx::query("SELECT * FROM execution WHERE frontdoor = $1 AND id = $2")
            .bind(frontdoor.to_string())
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(ExecutionRow::read).transpose()
    }

    /// From the record of this organization, or of any.
    pub async fn organization_execution(
        &self,
        organization: Option<&str>,
        id: ExecutionId,
    ) -> Result<Option<ExecutionRow>> {
        let row = sqlx::query("SELECT * FROM execution WHERE id = $1 AND organization IS NOT NULL")
            .bind(id.to_string())
            .fetch_optional(&self.readers)
            .await?;
        let row = row.as_ref().map(ExecutionRow::read).transpose()?;
        Ok(row.filter(|e| organization.is_none_or(|own| e.organization.as_deref() == Some(own))))
    }
}

impl Store {
    pub async fn executions(
        &self,
        frontdoor: FrontdoorId,
        request: &ListRequest,
    ) -> Result<Page<ExecutionRow>> {
        self.list(&LISTING, of(&columns::FRONTDOOR, frontdoor), request, ExecutionRow::read).await
    }

    /// The executions of one organization, or of all.
    pub async fn organization_executions(
        &self,
        organization: Option<&str>,
        request: &ListRequest,
    ) -> Result<Page<ExecutionRow>> {
        let scope = organization.map(|o| (&columns::ORGANIZATION, vec![o.to_owned()]));
        self.list(&ORGANIZATION_LISTING, scope, request, ExecutionRow::read).await
    }
}

pub(crate) static LISTING: Listing = Listing::new("x.*", "execution x", "x.id");
/// The record of organizations: their API accounts and their Frontdoors.
pub(crate) static ORGANIZATION_LISTING: Listing =
    Listing::new("x.*", "execution x", "x.id").only("x.organization IS NOT NULL");

pub mod columns {
    crate::list_column::columns! {
        ID = Text("x.id");
        PROCESS = Text("x.process");
        FRONTDOOR = Text("x.frontdoor");
        ORGANIZATION = Text("x.organization").optional();
        ACTOR = Text("x.actor");
        ACTION = Text("x.action");
        RESOURCE_TYPE = Text("x.resource_type");
        RESOURCE = Text("x.resource");
        STATUS = Text("x.status");
        MESSAGE = Text("x.message").optional();
        CREATED_AT = Time("x.created_at");
        FINISHED_AT = Time("x.finished_at").optional();
    }
}
