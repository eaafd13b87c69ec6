//! What a handler starts from: a caller who may be here, the Frontdoor of the path, the id in it.

use super::wire::fields::printable;
use crate::{
    auth::{Principal, Scope, authenticate},
    error::{ApiError, ResourceKind},
    state::AppState,
};
use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use std::str::FromStr;
use wicketgate_model::FrontdoorId;
use wicketgate_store::FrontdoorRow;

/// An authenticated caller.
#[derive(Debug)]
pub(super) struct Caller(pub(super) Principal);

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        principal(parts, state).await.map(Self)
    }
}

/// An authenticated caller in a Frontdoor that it may see.
#[derive(Debug)]
pub(super) struct InFrontdoor {
    pub(super) principal: Principal,
    pub(super) frontdoor: FrontdoorRow,
}

impl FromRequestParts<AppState> for InFrontdoor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let principal = principal(parts, state).await?;
        let text = parameter(parts, "frontdoorId").await?;
        let not_found = || ApiError::frontdoor_not_found(printable(&text));
        let id: FrontdoorId = text.parse().map_err(|_| not_found())?;
        let frontdoor = state.store.frontdoor(id).await?.ok_or_else(not_found)?;
        if principal.sees(&frontdoor) { Ok(Self { principal, frontdoor }) } else { Err(not_found()) }
    }
}

/// The layer that keeps answers has authenticated a request with an idempotency key.
async fn principal(parts: &mut Parts, state: &AppState) -> Result<Principal, ApiError> {
    match parts.extensions.remove::<Principal>() {
        Some(principal) => Ok(principal),
        None => authenticate(&parts.headers, &state.auth, &state.store).await,
    }
}

impl InFrontdoor {
    pub(super) fn id(&self) -> FrontdoorId {
        self.frontdoor.id
    }

    pub(super) fn need(&self, scope: Scope) -> Result<(), ApiError> {
        self.principal.need(scope)
    }

    /// For tunnels and shares, which a Frontdoor may have switched off.
    pub(super) fn need_shares(&self, scope: Scope) -> Result<(), ApiError> {
        self.need(scope)?;
        if self.frontdoor.ipsec_shares_enabled {
            Ok(())
        } else {
            Err(ApiError::shares_not_enabled(self.id()))
        }
    }

    /// The path of a collection of this Frontdoor.
    pub(super) fn path(&self, collection: &str) -> String {
        format!("/frontdoor/v2/{}/{collection}", self.id())
    }
}

/// The `{id}` of a path, not yet read.
#[derive(Debug)]
pub(super) struct PathId(String);

impl FromRequestParts<AppState> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        parameter(parts, "id").await.map(Self)
    }
}

impl PathId {
    /// What can't be an id is the id of nothing.
    pub(super) fn parse<T: FromStr>(&self, kind: ResourceKind) -> Result<T, ApiError> {
        self.0.parse().map_err(|_| ApiError::not_found(kind, printable(&self.0)))
    }
}

async fn parameter(parts: &mut Parts, name: &str) -> Result<String, ApiError> {
    let Path(all) = Path::<Vec<(String, String)>>::from_request_parts(parts, &())
        .await
        .map_err(|_| ApiError::bad_request("The path must be UTF-8, percent-encoded"))?;
    let found = all.into_iter().find_map(|(key, value)| (key == name).then_some(value));
    found.ok_or_else(|| ApiError::no_such_path(parts.uri.path()))
}
