//! The record of every write, of every read of a key and of failed authentications: its actor, where that sent it from, its action,
//! resource and result. It is the audit trail.

use crate::{
    Result, StoreError, WriteContext, bulk::parts, field::text_fields, row::write, statement::Assignments,
    transaction::Transaction,
};
use jiff::Timestamp;
use std::net::IpAddr;
use wicketgate_model::{ExecutionId, FrontdoorId, Generation, text_enum};

text_enum!(
    /// The recorded action.
    Action {
        Create = "CREATE",
        Update = "UPDATE",
        Delete = "DELETE",
        RotateKey = "ROTATE_KEY",
        ReadKey = "READ_KEY",
        Enrol = "ENROL",
        CloseConnections = "CLOSE_CONNECTIONS",
        Reset = "RESET",
        Open = "OPEN",
        /// What a gateway holds back is removed.
        ConfirmRemoval = "CONFIRM_REMOVAL",
        /// A client has failed to authenticate.
        Authenticate = "AUTHENTICATE",
    }
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
        HandoverLink = "handover-link",
        Gateway = "gateway",
        JoinToken = "join-token",
    }
);
text_enum!(
    /// The state of an execution.
    ExecutionStatus { Running = "RUNNING", Success = "SUCCESS", Failed = "FAILED" }
);
text_fields!(Action, ResourceType, ExecutionStatus);

impl Action {
    /// It is done to what a resource is now: the resource itself does not change.
    pub(crate) fn changes_nothing(self) -> bool {
        matches!(
            self,
            Self::ReadKey | Self::CloseConnections | Self::Reset | Self::ConfirmRemoval | Self::Authenticate
        )
    }
}

/// The organization of what belongs to the whole installation: no organization has this name.
pub(crate) const INSTALLATION: &str = "";

/// What ends an execution.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndsWith {
    /// It is done at once.
    Itself,
    /// The status of this generation, which a gateway has to follow.
    Status(Generation),
    /// `end_action` of the store.
    Outcome,
}

/// The subject of an execution.
pub(crate) struct Execution<'a> {
    pub(crate) resource_type: ResourceType,
    pub(crate) resource: &'a (dyn std::fmt::Display + Sync),
    pub(crate) ends_with: EndsWith,
    /// The organization whose record it belongs to, besides that of its Frontdoor.
    pub(crate) organization: Option<&'a str>,
    /// Why it has failed, if it has.
    pub(crate) fault: Option<&'a str>,
}

impl<'a> Execution<'a> {
    pub(crate) fn of(resource_type: ResourceType, resource: &'a (dyn std::fmt::Display + Sync)) -> Self {
        Self { resource_type, resource, ends_with: EndsWith::Itself, organization: None, fault: None }
    }

    /// Writes the record, of a Frontdoor unless the resource is an organization's own.
    pub(crate) async fn insert(
        self,
        tx: &mut Transaction,
        context: &WriteContext,
        frontdoor: Option<FrontdoorId>,
        action: Action,
    ) -> Result<ExecutionId> {
        let record = self.record(context, frontdoor, action);
        let set = Assignments::of(&record);
        let insert = if frontdoor.is_some() && self.is_new_in_its_frontdoor(action) {
            let number = set.number("frontdoor");
            let live = format!("FROM frontdoor f WHERE f.id = ${number} AND f.deleted_at IS NULL");
            set.insert_from("execution", &live)?
        } else {
            set.insert("execution", "")?
        };
        match (tx.run(insert).await?, frontdoor) {
            (0, Some(id)) => Err(StoreError::NoFrontdoor(id)),
            _ => Ok(record.id),
        }
    }

    pub(crate) fn record(
        &self,
        context: &WriteContext,
        frontdoor: Option<FrontdoorId>,
        action: Action,
    ) -> Record {
        let is_running = self.ends_with != EndsWith::Itself;
        let status = match self.fault {
            Some(_) => ExecutionStatus::Failed,
            None if is_running => ExecutionStatus::Running,
            None => ExecutionStatus::Success,
        };
        // No row has generation 0: no status ends the execution.
        let generation = if let EndsWith::Status(generation) = self.ends_with { generation.get() } else { 0 };
        Record {
            id: ExecutionId::new((context.fresh)()),
            process: context.process,
            actor: context.actor.clone(),
            source_address: context.origin.address,
            request_id: context.origin.request_id.clone(),
            action,
            resource_type: self.resource_type,
            resource: self.resource.to_string(),
            generation,
            status,
            message: self.fault.map(str::to_owned),
            created_at: context.at,
            finished_at: (!is_running).then_some(context.at),
            frontdoor: frontdoor.map(|id| id.to_string()).unwrap_or_default(),
            organization: self.organization.map(str::to_owned),
        }
    }

    /// Nothing is created in a deleted Frontdoor: no request could remove it.
    fn is_new_in_its_frontdoor(&self, action: Action) -> bool {
        matches!(action, Action::Create | Action::Enrol)
            && !matches!(self.resource_type, ResourceType::Frontdoor | ResourceType::ApiAccount)
    }
}

/// The row of an execution.
pub(crate) struct Record {
    id: ExecutionId,
    process: ExecutionId,
    actor: String,
    source_address: Option<IpAddr>,
    request_id: Option<String>,
    action: Action,
    resource_type: ResourceType,
    resource: String,
    generation: u64,
    status: ExecutionStatus,
    message: Option<String>,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
    /// Empty in the record of an organization alone.
    frontdoor: String,
    organization: Option<String>,
}

impl Record {
    /// With what came of the action.
    pub(crate) fn with_message(self, message: String) -> Self {
        Self { message: Some(message), ..self }
    }
}

write!(Record {
    id,
    process,
    actor,
    source_address,
    request_id,
    action,
    resource_type,
    resource,
    generation,
    status,
    message,
    created_at,
    finished_at,
    frontdoor,
    organization,
});

/// Writes records of what is not new in its Frontdoor: a statement for each part of them.
pub(crate) async fn insert_all(tx: &mut Transaction, records: &[Record]) -> Result<()> {
    for part in parts(records) {
        let rows: Vec<_> = part.iter().map(Assignments::of).collect();
        tx.run(Assignments::insert_all("execution", &rows)?).await?;
    }
    Ok(())
}
