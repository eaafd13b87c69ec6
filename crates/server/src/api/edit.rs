//! A write to one resource below a Frontdoor.

use super::{
    access::{At, Id, Identifies, Writes, WritesShares},
    conditional::Preconditions,
    wire::answer::Format,
};
use crate::{
    error::{ApiError, ResourceKind},
    state::AppState,
};
use axum::{
    extract::FromRequestParts,
    http::{Method, request::Parts},
};

/// What a handler of PUT, PATCH and DELETE needs besides the body.
pub(super) struct Edit<T> {
    pub(super) at: At,
    pub(super) id: T,
    pub(super) format: Format,
    pub(super) wanted: Preconditions,
}

impl<T: Identifies> FromRequestParts<AppState> for Edit<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let at = match T::KIND {
            // What is not served any longer may be removed.
            ResourceKind::Share | ResourceKind::Tunnel if parts.method != Method::DELETE => {
                WritesShares::from_request_parts(parts, state).await?.0
            }
            _ => Writes::from_request_parts(parts, state).await?.0,
        };
        let Id(id) = Id::from_request_parts(parts, state).await?;
        let format = Format::from_request_parts(parts, state).await?;
        let wanted = Preconditions::from_request_parts(parts, state).await?;
        Ok(Self { at, id, format, wanted })
    }
}
