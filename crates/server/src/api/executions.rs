//! `/{frontdoorId}/executions`: what was written, by whom, and how it ended.

use super::{
    access::{InFrontdoor, PathId},
    wire::{answer::Format, execution::Execution, query::Query},
};
use crate::{
    auth::Scope,
    error::{ApiError, Kind},
    state::AppState,
};
use axum::{extract::State, http::StatusCode, response::Response};
use wicketgate_model::ExecutionId;

pub(super) async fn list(
    State(state): State<AppState>,
    at: InFrontdoor,
    format: Format,
    query: Query,
) -> Result<Response, ApiError> {
    at.need(Scope::Read)?;
    let query = query.list(&wicketgate_store::EXECUTIONS)?;
    let page = state.store.executions(at.id(), &query.request).await?;
    let rows = page.rows.into_iter().map(Execution::of).map(|e| {
        let links = e.links();
        (e, links)
    });
    Ok(format.page("executionList", &at.path("executions"), &query, page.total, rows.collect()))
}

pub(super) async fn get(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
) -> Result<Response, ApiError> {
    at.need(Scope::Read)?;
    let id: ExecutionId = id.parse(Kind::Execution)?;
    let row = state.store.execution(at.id(), id).await?;
    let execution = Execution::of(row.ok_or_else(|| ApiError::not_found(Kind::Execution, id))?);
    let links = execution.links();
    Ok(format.one(StatusCode::OK, &execution, links))
}
