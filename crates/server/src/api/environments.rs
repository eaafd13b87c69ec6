//! `/{frontdoorId}/environments`

use super::{
    access::{InFrontdoor, PathId},
    wire::{
        answer::Format,
        body::Body,
        environment::{self, Environment},
        query::Query,
    },
};
use crate::{
    auth::Scope,
    error::{ApiError, Kind, refused},
    state::AppState,
};
use axum::{extract::State, http::StatusCode, response::Response};
use wicketgate_model::EnvironmentId;
use wicketgate_store::EnvironmentRow;

pub(super) async fn list(
    State(state): State<AppState>,
    at: InFrontdoor,
    format: Format,
    query: Query,
) -> Result<Response, ApiError> {
    at.need(Scope::Read)?;
    let query = query.list()?;
    let page = state.store.environments(at.id(), query.page).await?;
    let agents = match (page.rows.first(), page.rows.last()) {
        (Some(first), Some(last)) => state.store.agents_between(at.id(), first.id, last.id).await?,
        _ => Vec::new(),
    };
    let rows = page.rows.into_iter().map(|row| Environment::of(row, &agents)).map(|e| {
        let links = e.links();
        (e, links)
    });
    Ok(format.page("environmentList", &at.path("environments"), &query, page.total, rows.collect()))
}

pub(super) async fn get(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
) -> Result<Response, ApiError> {
    at.need(Scope::Read)?;
    let row = find(&state, &at, id.parse(Kind::Environment)?).await?;
    answer(&state, format, StatusCode::OK, row).await
}

pub(super) async fn patch(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
    body: Body,
) -> Result<Response, ApiError> {
    at.need(Scope::Write)?;
    let row = find(&state, &at, id.parse(Kind::Environment)?).await?;
    let name = environment::name(&row, body.object()?)?;
    let done = state.store.rename_environment(at.id(), row.id, &name, &state.act(&at.principal)).await;
    done.map_err(refused(Kind::Environment, row.id))?;
    let row = find(&state, &at, row.id).await?;
    answer(&state, format, StatusCode::OK, row).await
}

/// Its shares go with it, which takes the gateway's time: 202, and it is gone from the API at once.
pub(super) async fn delete(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
) -> Result<Response, ApiError> {
    at.need(Scope::Write)?;
    let row = find(&state, &at, id.parse(Kind::Environment)?).await?;
    let done = state.store.delete_environment(at.id(), row.id, &state.act(&at.principal)).await;
    done.map_err(refused(Kind::Environment, row.id))?;
    state.wake.notify_one();
    let gone = EnvironmentRow { active: false, ..row };
    answer(&state, format, StatusCode::ACCEPTED, gone).await
}

async fn find(state: &AppState, at: &InFrontdoor, id: EnvironmentId) -> Result<EnvironmentRow, ApiError> {
    let row = state.store.environment(at.id(), id).await?;
    row.ok_or_else(|| ApiError::not_found(Kind::Environment, id))
}

async fn answer(
    state: &AppState,
    format: Format,
    status: StatusCode,
    row: EnvironmentRow,
) -> Result<Response, ApiError> {
    let agents = state.store.agents_between(row.frontdoor, row.id, row.id).await?;
    let environment = Environment::of(row, &agents);
    let links = environment.links();
    Ok(format.one(status, &environment, links))
}
