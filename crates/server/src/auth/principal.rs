//! An authenticated caller, and the reasons for which a token is refused.

use super::scope::Scope;
use crate::error::{ApiError, in_seconds};
use jiff::Timestamp;
use std::sync::Arc;
use wicketgate_model::ApiAccountId;
use wicketgate_store::{Claim, FrontdoorRow, Reach};

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// As in `createdBy` and in executions: `admin`, a client id, or `oidc:` and a subject.
    pub actor: String,
    /// The Frontdoors it sees.
    pub reach: Reach,
    /// The customer that it is of; `None`: the operator.
    pub organization: Option<String>,
    pub scopes: Vec<Scope>,
    /// The claim on its idempotency key that this request holds: its write marks it.
    pub(crate) claim: Option<Arc<Claim>>,
}

impl Principal {
    pub(crate) fn need(&self, scope: Scope) -> Result<(), ApiError> {
        if self.scopes.contains(&scope) { Ok(()) } else { Err(ApiError::lacks_scope(scope)) }
    }

    /// Whose processor time its requests take, whichever of the customer's accounts it is; `None`: the operator's.
    pub(crate) fn tenant(&self) -> Option<String> {
        self.organization.as_ref().map(|organization| format!("organization {organization}"))
    }

    pub(crate) fn sees(&self, frontdoor: &FrontdoorRow) -> bool {
        self.reach.sees(frontdoor)
    }

    /// The organization it administers; `None` for all.
    pub(crate) fn administered(&self) -> Result<Option<&str>, ApiError> {
        self.need(Scope::Admin)?;
        match &self.reach {
            Reach::All => Ok(None),
            Reach::Organization(own) => Ok(Some(own)),
            // It could create an account that reaches more than it does.
            Reach::Named(_) => Err(ApiError::not_authorized("The token is for named Frontdoors only")),
        }
    }

    /// Checks that it may change a property that bounds what its customers take of the installation.
    pub(crate) fn need_operator(&self, property: &str) -> Result<(), ApiError> {
        self.need(Scope::Admin)?;
        match &self.reach {
            Reach::All => Ok(()),
            Reach::Organization(_) | Reach::Named(_) => Err(ApiError::not_authorized(format!(
                "Only the operator, with the admin token, changes {property}"
            ))),
        }
    }

    /// Checks access to what belongs to an organization and to no single Frontdoor.
    pub(crate) fn need_organization(&self, organization: &str) -> Result<(), ApiError> {
        match &self.reach {
            Reach::All => Ok(()),
            Reach::Organization(own) if own == organization => Ok(()),
            Reach::Organization(_) => Err(ApiError::not_authorized("The token is of another organization")),
            Reach::Named(_) => Err(ApiError::not_authorized("The token is for named Frontdoors only")),
        }
    }
}

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the token is invalid")]
    Invalid,
    #[error("the token has expired")]
    Expired,
    /// It is the secret of this API account, which ended at this time.
    #[error("the API account expired at {}", in_seconds(*.1))]
    AccountExpired(ApiAccountId, Timestamp),
    /// It is genuine and has no organization.
    #[error("the token names no organization")]
    NoOrganization,
    #[error("the identity provider does not answer")]
    ProviderDown,
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Invalid => Self::token_invalid(),
            Refused::Expired => Self::token_expired(),
            Refused::AccountExpired(account, end) => Self::account_expired(account, end),
            Refused::NoOrganization => Self::no_organization(),
            Refused::ProviderDown => Self::unavailable("The identity provider does not answer"),
        }
    }
}
