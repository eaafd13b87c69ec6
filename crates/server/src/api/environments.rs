//! `/{frontdoorId}/environments`

use super::{
    access::{InFrontdoor, PathId},
    conditional::Preconditions,
    refusal::refused,
    wire::{
        answer::Format,
        body::Body,
        environment::{self, Environment},
        query::Query,
    },
};
use crate::{
    auth::Scope,
    error::{ApiError, ResourceKind},
    state::AppState,
};
use axum::{extract::State, http::StatusCode, response::Response};
use wicketgate_model::EnvironmentId;
use wicketgate_store::{EnvironmentRow, WriteContext};

pub(super) async fn list(
    State(state): State<AppState>,
    at: InFrontdoor,
    format: Format,
    query: Query,
) -> Result<Response, ApiError> {
    at.need(Scope::Read)?;
    let query = query.list(environment::PROPERTIES)?;
    let page = state.store.environments(at.id(), &query.request).await?;
    let ids: Vec<_> = page.rows.iter().map(|row| row.id).collect();
    let agents = state.store.agents_of(at.id(), &ids).await?;
    let rows = page.rows.into_iter().map(|row| Environment::of(row, &agents));
    Ok(format.page(&at.path("environments"), &query, page.total, rows))
}

pub(super) async fn get(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
) -> Result<Response, ApiError> {
    at.need(Scope::Read)?;
    let row = find(&state, &at, id.parse(ResourceKind::Environment)?).await?;
    answer(&state, format, StatusCode::OK, row).await
}

pub(super) async fn patch(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
    wanted: Preconditions,
    body: Body,
) -> Result<Response, ApiError> {
    at.need(Scope::Write)?;
    let row = find(&state, &at, id.parse(ResourceKind::Environment)?).await?;
    let name = environment::name(&row, body.object()?)?;
    let context = checked(&state, &at, &wanted, &row).await?;
    if name == row.name {
        return answer(&state, format, StatusCode::OK, row).await;
    }
    let done = state.store.rename_environment(at.id(), row.id, &name, &context).await;
    done.map_err(refused(ResourceKind::Environment, row.id))?;
    let row = find(&state, &at, row.id).await?;
    answer(&state, format, StatusCode::OK, row).await
}

/// Its shares go with it, which takes the gateway's time: 202, and it is gone from the API at once.
pub(super) async fn delete(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
    wanted: Preconditions,
) -> Result<Response, ApiError> {
    at.need(Scope::Write)?;
    let row = find(&state, &at, id.parse(ResourceKind::Environment)?).await?;
    let context = checked(&state, &at, &wanted, &row).await?;
    let done = state.store.delete_environment(at.id(), row.id, &context).await;
    done.map_err(refused(ResourceKind::Environment, row.id))?;
    state.wake.notify_one();
    let gone = EnvironmentRow { active: false, ..row };
    answer(&state, format, StatusCode::ACCEPTED, gone).await
}

/// The write's context, if the row is in the state that the caller wants it in, and then for that state only.
async fn checked(
    state: &AppState,
    at: &InFrontdoor,
    wanted: &Preconditions,
    row: &EnvironmentRow,
) -> Result<WriteContext, ApiError> {
    let context = state.write_context(&at.principal);
    if !wanted.are_given() {
        return Ok(context);
    }
    let agents = state.store.agents_of(row.frontdoor, &[row.id]).await?;
    wanted.hold_for(&Environment::of(row.clone(), &agents))?;
    Ok(context.expecting(row.updated_at))
}

async fn find(state: &AppState, at: &InFrontdoor, id: EnvironmentId) -> Result<EnvironmentRow, ApiError> {
    let row = state.store.environment(at.id(), id).await?;
    row.ok_or_else(|| ApiError::not_found(ResourceKind::Environment, id))
}

async fn answer(
    state: &AppState,
    format: Format,
    status: StatusCode,
    row: EnvironmentRow,
) -> Result<Response, ApiError> {
    let agents = state.store.agents_of(row.frontdoor, &[row.id]).await?;
    let environment = Environment::of(row, &agents);
    Ok(format.resource(status, &environment))
}
