//! The audit trail, as it is read: of a Frontdoor, and of an organization.

use crate::{
    Action, ExecutionStatus, ListRequest, Page, ResourceType, Result, Store,
    list::{Listing, of},
    row::rows,
};
use jiff::Timestamp;
use std::net::IpAddr;
use wicketgate_model::{ExecutionId, FrontdoorId};

rows! {
    #[derive(Debug, Clone)]
    pub struct ExecutionRow {
        pub id: ExecutionId,
        /// The same for all executions of one request.
        pub process: ExecutionId,
        /// `None` for an organization's own resources.
        pub frontdoor: Option<FrontdoorId>,
        /// Of an organization's own resources; `None` also for those of the installation.
        pub organization: Option<String>,
        pub actor: String,
        /// The actor's at that time, if it is an API account.
        pub actor_name: Option<String>,
        /// The client's.
        pub source_address: Option<IpAddr>,
        pub request_id: Option<String>,
        pub action: Action,
        pub resource_type: ResourceType,
        pub resource: String,
        /// The resource's at that time, if it has one.
        pub resource_name: Option<String>,
        pub status: ExecutionStatus,
        /// Why it failed.
        pub message: Option<String>,
        pub created_at: Timestamp,
        pub finished_at: Option<Timestamp>,
    }
}

impl Store {
    pub async fn execution(&self, frontdoor: FrontdoorId, id: ExecutionId) -> Result<Option<ExecutionRow>> {
        self.find(LISTING.find("x.frontdoor = $1 AND x.id = $2"), &[&frontdoor, &id]).await
    }

    /// From the record of this organization, or of any.
    pub async fn organization_execution(
        &self,
        organization: Option<&str>,
        id: ExecutionId,
    ) -> Result<Option<ExecutionRow>> {
        let row: Option<ExecutionRow> = self.find(ORGANIZATION_LISTING.find("x.id = $1"), &[&id]).await?;
        Ok(row.filter(|e| organization.is_none_or(|own| e.organization.as_deref() == Some(own))))
    }

    pub async fn executions(
        &self,
        frontdoor: FrontdoorId,
        request: &ListRequest,
    ) -> Result<Page<ExecutionRow>> {
        self.list(&LISTING, of(&columns::FRONTDOOR, frontdoor), request).await
    }

    /// The executions of one organization, or of all.
    pub async fn organization_executions(
        &self,
        organization: Option<&str>,
        request: &ListRequest,
    ) -> Result<Page<ExecutionRow>> {
        let scope = organization.map(|o| (&columns::ORGANIZATION, vec![o.to_owned()]));
        self.list(&ORGANIZATION_LISTING, scope, request).await
    }
}

pub(crate) static LISTING: Listing = Listing::new(
    "x.id, x.process, NULLIF(x.frontdoor, '') AS frontdoor, NULLIF(x.organization, '') AS organization, x.actor, x.actor_name, x.source_address, x.request_id, \
     x.action, x.resource_type, x.resource, x.resource_name, x.status, x.message, x.created_at, x.finished_at",
    "execution x",
    "x.id",
);
/// The record of organizations: their API accounts and their Frontdoors. Its operator sees that of the installation, too.
pub(crate) static ORGANIZATION_LISTING: Listing =
    Listing::new(LISTING.select, LISTING.from, LISTING.id).only("x.organization IS NOT NULL");

pub mod columns {
    crate::list_column::columns! {
        ID = Text("x.id");
        PROCESS = Text("x.process");
        FRONTDOOR = Text("x.frontdoor");
        ORGANIZATION = Text("x.organization").optional();
        ACTOR = Text("x.actor");
        ACTOR_NAME = Text("x.actor_name").optional();
        SOURCE_ADDRESS = Text("x.source_address").optional();
        REQUEST_ID = Text("x.request_id").optional();
        ACTION = Text("x.action");
        RESOURCE_TYPE = Text("x.resource_type");
        RESOURCE = Text("x.resource");
        RESOURCE_NAME = Text("x.resource_name").optional();
        STATUS = Text("x.status");
        MESSAGE = Text("x.message").optional();
        CREATED_AT = Time("x.created_at");
        FINISHED_AT = Time("x.finished_at").optional();
    }
}
