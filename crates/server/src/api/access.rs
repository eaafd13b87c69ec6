//! What a handler starts from: a caller with the scope it needs, the Frontdoor of the path, and the id in the path.

use super::{
    limits::{ListReader, admitted},
    request_context::RequestContext,
    wire::fields::printable,
};
use crate::{
    auth::{Principal, Scope, authenticate},
    error::{ApiError, ResourceKind},
    state::AppState,
};
use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
    response::Response,
};
use std::str::FromStr;
use wicketgate_model::{
    AgentId, ApiAccountId, EnrollmentId, EnvironmentKey, ExecutionId, FrontdoorId, GatewayId, HandoverLinkId,
    JoinTokenId, ShareId, TunnelId,
};
use wicketgate_store::{FrontdoorRow, RequestOrigin, WriteContext};

/// The answer of a handler.
pub(super) type Answer = Result<Response, ApiError>;

/// An authenticated caller, for what belongs to no Frontdoor.
pub(super) struct Caller {
    pub(super) state: AppState,
    pub(super) principal: Principal,
    origin: RequestOrigin,
}

/// A caller that administers an organization.
pub(super) struct Administers {
    pub(super) caller: Caller,
    /// `None`: all organizations.
    pub(super) organization: Option<String>,
}

/// A caller that administers all organizations: the operator of the installation.
pub(super) struct Operates(pub(super) Caller);

/// An authenticated caller and a Frontdoor that it has access to.
pub(super) struct At {
    pub(super) state: AppState,
    pub(super) principal: Principal,
    origin: RequestOrigin,
    pub(super) frontdoor: FrontdoorRow,
}

/// Declares extractors of [`At`] for callers that have a scope.
macro_rules! extractors {
    ($($(#[$doc:meta])* $name:ident: $scope:ident $(, $enabled:ident)?;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name(pub(super) At);

        impl FromRequestParts<AppState> for $name {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
                let at = At::from_request_parts(parts, state).await?;
                at.principal.need(Scope::$scope)?;
                $(at.$enabled()?;)?
                Ok(Self(at))
            }
        }
    )*};
}

/// A caller that may read what was recorded of a Frontdoor, by an administrator also after it was deleted.
pub(super) struct ReadsRecords(pub(super) At);

extractors! {
    Reads: Read;
    Writes: Write;
    /// Shares and tunnels are a feature that a Frontdoor may have switched off.
    ReadsShares: Read, need_shares;
    WritesShares: Write, need_shares;
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let principal = principal(parts, state).await?;
        Ok(Self { state: state.clone(), principal, origin: RequestContext::of(&parts.extensions).origin })
    }
}

impl FromRequestParts<AppState> for Administers {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let organization = caller.principal.administered()?.map(str::to_owned);
        Ok(Self { caller, organization })
    }
}

impl FromRequestParts<AppState> for Operates {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let Administers { caller, organization } = Administers::from_request_parts(parts, state).await?;
        match organization {
            None => Ok(Self(caller)),
            Some(_) => Err(ApiError::not_authorized(
                "The token is of one organization; this is of the whole installation, for its operator",
            )),
        }
    }
}

impl FromRequestParts<AppState> for At {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        Self::of(parts, state, false).await
    }
}

impl FromRequestParts<AppState> for ReadsRecords {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let at = At::of(parts, state, true).await?;
        at.principal.need(Scope::Read)?;
        Ok(Self(at))
    }
}

/// For a request with an idempotency key, `idempotency` has authenticated and counted the caller already.
async fn principal(parts: &mut Parts, state: &AppState) -> Result<Principal, ApiError> {
    let principal = match parts.extensions.remove::<Principal>() {
        Some(principal) => principal,
        None => {
            let authenticated = authenticate(&parts.method, &parts.headers, &state.auth, &state.store).await;
            admitted(state, (&parts.method, &parts.extensions), authenticated).await?
        }
    };
    // For the query of a list, which is read next.
    if let Some(reader) = ListReader::of(&principal) {
        parts.extensions.insert(reader);
    }
    Ok(principal)
}

impl Caller {
    pub(super) fn write_context(&self) -> WriteContext {
        self.state.write_context(&self.principal, &self.origin)
    }
}

impl At {
    /// `or_deleted`: an administrator has access to a Frontdoor that was deleted.
    async fn of(parts: &mut Parts, state: &AppState, or_deleted: bool) -> Result<Self, ApiError> {
        let principal = principal(parts, state).await?;
        let text = parameter(parts, "frontdoorId").await?;
        let not_found = || ApiError::frontdoor_not_found(printable(&text));
        let id: FrontdoorId = text.parse().map_err(|_| not_found())?;
        let mut found = state.store.frontdoor(id).await?;
        if found.is_none() && or_deleted && principal.administered().is_ok() {
            found = state.store.deleted_frontdoor(id).await?;
        }
        let frontdoor = found.filter(|f| principal.sees(f)).ok_or_else(not_found)?;
        let origin = RequestContext::of(&parts.extensions).origin;
        Ok(Self { state: state.clone(), principal, origin, frontdoor })
    }

    pub(super) fn id(&self) -> FrontdoorId {
        self.frontdoor.id
    }

    pub(super) fn write_context(&self) -> WriteContext {
        self.state.write_context(&self.principal, &self.origin)
    }

    /// The path of a collection of this Frontdoor.
    pub(super) fn path(&self, collection: &str) -> String {
        format!("/frontdoor/v2/{}/{collection}", self.id())
    }

    fn need_shares(&self) -> Result<(), ApiError> {
        if self.frontdoor.spec.ipsec_shares_enabled {
            Ok(())
        } else {
            Err(ApiError::shares_not_enabled(self.id()))
        }
    }
}

/// The id of a resource in a path. Text that is not an id is the id of no resource.
pub(super) struct Id<T>(pub(super) T);

/// The id of a kind of resource.
pub(super) trait Identifies: FromStr + Send {
    const KIND: ResourceKind;
    /// Its name in paths.
    const PARAMETER: &'static str = "id";
}

macro_rules! identify {
    ($($id:ty: $kind:ident;)*) => {$(
        impl Identifies for $id {
            const KIND: ResourceKind = ResourceKind::$kind;
        }
    )*};
}

identify! {
    AgentId: Agent;
    ApiAccountId: ApiAccount;
    EnrollmentId: Enrollment;
    EnvironmentKey: Environment;
    ExecutionId: Execution;
    GatewayId: Gateway;
    JoinTokenId: JoinToken;
    ShareId: Share;
    TunnelId: Tunnel;
}

/// Of a tunnel, whose id is in the path, too.
impl Identifies for HandoverLinkId {
    const KIND: ResourceKind = ResourceKind::HandoverLink;
    const PARAMETER: &'static str = "linkId";
}

impl<T: Identifies> FromRequestParts<AppState> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        let text = parameter(parts, T::PARAMETER).await?;
        text.parse().map(Self).map_err(|_| ApiError::not_found(T::KIND, printable(&text)))
    }
}

async fn parameter(parts: &mut Parts, name: &str) -> Result<String, ApiError> {
    let Path(all) = Path::<Vec<(String, String)>>::from_request_parts(parts, &())
        .await
        .map_err(|_| ApiError::bad_request("The path must be UTF-8, percent-encoded"))?;
    let found = all.into_iter().find_map(|(key, value)| (key == name).then_some(value));
    found.ok_or_else(|| ApiError::no_such_path(parts.uri.path()))
}
