//! The audit trail, as it is read: of a Frontdoor, and of an organization.

use crate::{
    Action, ExecutionStatus, ListRequest, Page, ResourceType, Result, Store,
    columns::{parsed, text, time, time_option},
    list::{Listing, of},
};
use jiff::Timestamp;
use sqlx::{Row, any::AnyRow};
use wicketgate_model::{ExecutionId, FrontdoorId};

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

impl Store {
    pub async fn execution(&self, frontdoor: FrontdoorId, id: ExecutionId) -> Result<Option<ExecutionRow>> {
        self.find(
            "SELECT * FROM execution WHERE frontdoor = $1 AND id = $2",
            &[&frontdoor, &id],
            ExecutionRow::read,
        )
        .await
    }

    /// From the record of this organization, or of any.
    pub async fn organization_execution(
        &self,
        organization: Option<&str>,
        id: ExecutionId,
    ) -> Result<Option<ExecutionRow>> {
        let select = "SELECT * FROM execution WHERE id = $1 AND organization IS NOT NULL";
        let row = self.find(select, &[&id], ExecutionRow::read).await?;
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
