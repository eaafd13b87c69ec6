//! `/{frontdoorId}/executions`: what was written, by whom, and how it ended; and `/frontdoor/v2/executions`, the same of
//! what is an organization's: its API accounts and its Frontdoors.

use super::{
    access::{Caller, InFrontdoor, PathId},
    wire::{
        answer::Format,
        execution::{self, Execution},
        query::ListQuery,
        query::Query,
    },
};
use crate::{
    auth::Scope,
    error::{ApiError, ResourceKind},
    state::AppState,
};
use axum::{extract::State, http::StatusCode, response::Response};
use wicketgate_model::ExecutionId;
use wicketgate_store::{ExecutionRow, Page};

const OF_ORGANIZATION: &str = "/frontdoor/v2/executions";

pub(super) async fn list(
    State(state): State<AppState>,
    at: InFrontdoor,
    format: Format,
    query: Query,
) -> Result<Response, ApiError> {
    at.need(Scope::Read)?;
    let query = query.list(execution::PROPERTIES)?;
    let page = state.store.executions(at.id(), &query.request).await?;
    Ok(listed(format, &at.path("executions"), &query, page))
}

pub(super) async fn get(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
) -> Result<Response, ApiError> {
    at.need(Scope::Read)?;
    let id: ExecutionId = id.parse(ResourceKind::Execution)?;
    let row = state.store.execution(at.id(), id).await?;
    answer(format, &at.path("executions"), id, row)
}

pub(super) async fn list_of_organization(
    State(state): State<AppState>,
    Caller(caller): Caller,
    format: Format,
    query: Query,
) -> Result<Response, ApiError> {
    let organization = caller.administered()?;
    let query = query.list(execution::PROPERTIES)?;
    let page = state.store.organization_executions(organization, &query.request).await?;
    Ok(listed(format, OF_ORGANIZATION, &query, page))
}

pub(super) async fn get_of_organization(
    State(state): State<AppState>,
    Caller(caller): Caller,
    id: PathId,
    format: Format,
) -> Result<Response, ApiError> {
    let organization = caller.administered()?;
    let id: ExecutionId = id.parse(ResourceKind::Execution)?;
    let row = state.store.organization_execution(organization, id).await?;
    answer(format, OF_ORGANIZATION, id, row)
}

fn listed(format: Format, path: &str, query: &ListQuery, page: Page<ExecutionRow>) -> Response {
    let rows = page.rows.into_iter().map(|row| Execution::of(row, path));
    format.page(path, query, page.total, rows)
}

fn answer(
    format: Format,
    path: &str,
    id: ExecutionId,
    row: Option<ExecutionRow>,
) -> Result<Response, ApiError> {
    let execution = Execution::of(row.ok_or_else(|| ApiError::not_found(ResourceKind::Execution, id))?, path);
    Ok(format.resource(StatusCode::OK, &execution))
}
