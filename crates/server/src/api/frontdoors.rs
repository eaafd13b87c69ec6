//! `/frontdoor/v2`

use super::{
    access::{Answer, At, Caller, Reads, Writes},
    conditional::Preconditions,
    wire::{
        answer::Format,
        body::Body,
        frontdoor::{self, Frontdoor},
        query::Query,
    },
};
use crate::{auth::Scope, error::ApiError};
use axum::{
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use wicketgate_store::{FrontdoorRow, StoreError, WriteContext};

pub(super) async fn list(caller: Caller, format: Format, query: Query) -> Answer {
    caller.principal.need(Scope::Read)?;
    let query = query.list(frontdoor::PROPERTIES)?;
    let page = caller.state.store.frontdoors(&caller.principal.reach, &query.request).await?;
    let rows = page.rows.into_iter().map(Frontdoor::of);
    Ok(format.page("/frontdoor/v2", &query, page.total, rows))
}

pub(super) async fn get(Reads(at): Reads, format: Format) -> Answer {
    Ok(answer(format, StatusCode::OK, at.frontdoor))
}

pub(super) async fn create(caller: Caller, format: Format, body: Body) -> Answer {
    caller.principal.need(Scope::Write)?;
    let spec = frontdoor::spec(body.object()?, None)?;
    if spec.ipsec_shares_enabled {
        caller.principal.need(Scope::Admin)?;
    }
    caller.principal.need_organization(&spec.organization)?;
    let row = caller.state.store.create_frontdoor(&spec, &caller.write_context()).await?;
    let location = Frontdoor::path(row.id);
    Ok(([(LOCATION, location)], answer(format, StatusCode::CREATED, row)).into_response())
}

pub(super) async fn patch(Writes(at): Writes, format: Format, wanted: Preconditions, body: Body) -> Answer {
    let whole = frontdoor::merged(&at.frontdoor, body.object()?);
    let spec = frontdoor::spec(whole, Some(&at.frontdoor))?;
    if spec.ipsec_shares_enabled != at.frontdoor.spec.ipsec_shares_enabled {
        at.principal.need(Scope::Admin)?;
    }
    let context = checked(&at, &wanted)?;
    if spec == at.frontdoor.spec {
        return Ok(answer(format, StatusCode::OK, at.frontdoor));
    }
    let row = at.state.store.replace_frontdoor(at.id(), &spec, &context).await;
    Ok(answer(format, StatusCode::OK, row.map_err(|e| refused(&at, e))?))
}

pub(super) async fn delete(Writes(at): Writes, wanted: Preconditions) -> Result<StatusCode, ApiError> {
    let context = checked(&at, &wanted)?;
    let done = at.state.store.delete_frontdoor(at.id(), &context).await;
    done.map_err(|e| refused(&at, e))?;
    Ok(StatusCode::NO_CONTENT)
}

/// The context of a write that applies to the Frontdoor's current state only; 412 if `If-Match` names another one.
fn checked(at: &At, wanted: &Preconditions) -> Result<WriteContext, ApiError> {
    let context = at.write_context();
    wanted.hold_for(&Frontdoor::of(at.frontdoor.clone()))?;
    Ok(if wanted.are_given() { context.expecting(at.frontdoor.updated_at) } else { context })
}

fn refused(at: &At, e: StoreError) -> ApiError {
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
