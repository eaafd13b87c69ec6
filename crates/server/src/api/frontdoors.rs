//! `/frontdoor/v2`

use super::{
    access::{Caller, InFrontdoor},
    conditional::Preconditions,
    wire::{
        answer::Format,
        body::Body,
        frontdoor::{self, Frontdoor},
        query::Query,
    },
};
use crate::{auth::Scope, error::ApiError, state::AppState};
use axum::{
    extract::State,
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use wicketgate_store::{FrontdoorRow, StoreError, WriteContext};

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(caller): Caller,
    format: Format,
    query: Query,
) -> Result<Response, ApiError> {
    caller.need(Scope::Read)?;
    let query = query.list(frontdoor::PROPERTIES)?;
    let page = state.store.frontdoors(&caller.reach, &query.request).await?;
    let rows = page.rows.into_iter().map(Frontdoor::of);
    Ok(format.page("/frontdoor/v2", &query, page.total, rows))
}

pub(super) async fn get(at: InFrontdoor, format: Format) -> Result<Response, ApiError> {
    at.need(Scope::Read)?;
    Ok(answer(format, StatusCode::OK, at.frontdoor))
}

pub(super) async fn create(
    State(state): State<AppState>,
    Caller(caller): Caller,
    format: Format,
    body: Body,
) -> Result<Response, ApiError> {
    caller.need(Scope::Write)?;
    let spec = frontdoor::spec(body.object()?, None)?;
    if spec.ipsec_shares_enabled {
        caller.need(Scope::Admin)?;
    }
    caller.need_organization(&spec.organization)?;
    let row = state.store.create_frontdoor(&spec, &state.write_context(&caller)).await?;
    let location = Frontdoor::path(row.id);
    Ok(([(LOCATION, location)], answer(format, StatusCode::CREATED, row)).into_response())
}

pub(super) async fn patch(
    State(state): State<AppState>,
    at: InFrontdoor,
    format: Format,
    wanted: Preconditions,
    body: Body,
) -> Result<Response, ApiError> {
    at.need(Scope::Write)?;
    let whole = frontdoor::merged(&at.frontdoor, body.object()?);
    let spec = frontdoor::spec(whole, Some(&at.frontdoor))?;
    if spec.ipsec_shares_enabled != at.frontdoor.ipsec_shares_enabled {
        at.need(Scope::Admin)?;
    }
    let context = checked(&state, &at, &wanted)?;
    if spec == at.frontdoor.spec() {
        return Ok(answer(format, StatusCode::OK, at.frontdoor));
    }
    let row = state.store.replace_frontdoor(at.id(), &spec, &context).await;
    Ok(answer(format, StatusCode::OK, row.map_err(|e| refused(&at, e))?))
}

pub(super) async fn delete(
    State(state): State<AppState>,
    at: InFrontdoor,
    wanted: Preconditions,
) -> Result<StatusCode, ApiError> {
    at.need(Scope::Write)?;
    let context = checked(&state, &at, &wanted)?;
    let done = state.store.delete_frontdoor(at.id(), &context).await;
    done.map_err(|e| refused(&at, e))?;
    Ok(StatusCode::NO_CONTENT)
}

/// The write's context, if the Frontdoor is in the state that the caller wants it in, and then for that state only.
fn checked(state: &AppState, at: &InFrontdoor, wanted: &Preconditions) -> Result<WriteContext, ApiError> {
    let context = state.write_context(&at.principal);
    wanted.hold_for(&Frontdoor::of(at.frontdoor.clone()))?;
    Ok(if wanted.are_given() { context.expecting(at.frontdoor.updated_at) } else { context })
}

fn refused(at: &InFrontdoor, e: StoreError) -> ApiError {
    match e {
        StoreError::Missing => ApiError::frontdoor_not_found(at.id()),
        StoreError::InUse { with } => {
            ApiError::conflict(format!("Frontdoor {} can't be deleted: {with} is in it", at.id()))
        }
        other => other.into(),
    }
}

fn answer(format: Format, status: StatusCode, row: FrontdoorRow) -> Response {
    let frontdoor = Frontdoor::of(row);
    format.resource(status, &frontdoor)
}
