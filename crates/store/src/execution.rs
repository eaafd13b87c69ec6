//! The record of every write and of every read of a key: its actor, action, resource and result. It is the audit trail.

use crate::{Result, StoreError, WriteContext, columns::big};
use sqlx::AnyConnection;
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
