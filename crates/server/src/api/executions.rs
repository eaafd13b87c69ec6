//! `/{frontdoorId}/executions`: the records of writes, with actor and result; and `/frontdoor/v2/executions`, the same
//! for the resources of an organization: its API accounts and its Frontdoors.

use super::{
    access::{Administers, Answer, Id, ReadsRecords},
    wire::{
        answer::Format,
        execution::{self, Execution},
        query::ListQuery,
        query::Query,
    },
};
use crate::error::{ApiError, ResourceKind};
use axum::{http::StatusCode, response::Response};
use wicketgate_model::ExecutionId;
use wicketgate_store::{ExecutionRow, Page};

const OF_ORGANIZATION: &str = "/frontdoor/v2/executions";

pub(super) async fn list(ReadsRecords(at): ReadsRecords, format: Format, query: Query) -> Answer {
    let query = query.list(execution::PROPERTIES)?;
    let page = at.state.store.executions(at.id(), &query.request).await?;
    Ok(listed(format, &at.path("executions"), &query, page))
}

pub(super) async fn get(ReadsRecords(at): ReadsRecords, Id(id): Id<ExecutionId>, format: Format) -> Answer {
    let row = at.state.store.execution(at.id(), id).await?;
    answer(format, &at.path("executions"), id, row)
}

pub(super) async fn list_of_organization(at: Administers, format: Format, query: Query) -> Answer {
    let query = query.list(execution::PROPERTIES)?;
    let store = &at.caller.state.store;
    let page = store.organization_executions(at.organization.as_deref(), &query.request).await?;
    Ok(listed(format, OF_ORGANIZATION, &query, page))
}

pub(super) async fn get_of_organization(at: Administers, Id(id): Id<ExecutionId>, format: Format) -> Answer {
    let row = at.caller.state.store.organization_execution(at.organization.as_deref(), id).await?;
    answer(format, OF_ORGANIZATION, id, row)
}

fn listed(format: Format, path: &str, query: &ListQuery, page: Page<ExecutionRow>) -> Response {
    let rows = page.rows.into_iter().map(|row| Execution::of(row, path));
    format.page(path, query, page.total, rows)
}

fn answer(format: Format, path: &str, id: ExecutionId, row: Option<ExecutionRow>) -> Answer {
    let execution = Execution::of(row.ok_or_else(|| ApiError::not_found(ResourceKind::Execution, id))?, path);
    Ok(format.resource(StatusCode::OK, &execution))
}
