//! `/{frontdoorId}/environments`

use super::{
    access::{Answer, At, Id, Reads},
    conditional::Preconditions,
    edit::Edit,
    refusal::refused,
    wire::{
        answer::Format,
        body::Body,
        environment::{self, Environment},
        query::Query,
    },
};
use crate::{
    error::{ApiError, ResourceKind},
    state::AppState,
};
use axum::http::StatusCode;
use wicketgate_model::EnvironmentId;
use wicketgate_store::{EnvironmentRow, WriteContext};

pub(super) async fn list(Reads(at): Reads, format: Format, query: Query) -> Answer {
    let query = query.list(environment::PROPERTIES)?;
    let page = at.state.store.environments(at.id(), &query.request).await?;
    let ids: Vec<_> = page.rows.iter().map(|row| row.id).collect();
    let agents = at.state.store.agents_of(at.id(), &ids).await?;
    let rows = page.rows.into_iter().map(|row| Environment::of(row, &agents));
    Ok(format.page(&at.path("environments"), &query, page.total, rows))
}

pub(super) async fn get(Reads(at): Reads, Id(id): Id<EnvironmentId>, format: Format) -> Answer {
    let row = find(&at, id).await?;
    answer(&at.state, format, StatusCode::OK, row).await
}

pub(super) async fn patch(edit: Edit<EnvironmentId>, body: Body) -> Answer {
    let Edit { at, id, format, wanted } = edit;
    let row = find(&at, id).await?;
    let name = environment::name(&row, body.object()?)?;
    let context = checked(&at, &wanted, &row).await?;
    if name == row.name {
        return answer(&at.state, format, StatusCode::OK, row).await;
    }
    let done = at.state.store.rename_environment(at.id(), row.id, &name, &context).await;
    done.map_err(refused(ResourceKind::Environment, row.id))?;
    let row = find(&at, row.id).await?;
    answer(&at.state, format, StatusCode::OK, row).await
}

/// Deletes the shares too, which takes the gateway time: 202. The environment disappears from the API at once.
pub(super) async fn delete(Edit { at, id, format, wanted }: Edit<EnvironmentId>) -> Answer {
    let row = find(&at, id).await?;
    let context = checked(&at, &wanted, &row).await?;
    let done = at.state.store.delete_environment(at.id(), row.id, &context).await;
    done.map_err(refused(ResourceKind::Environment, row.id))?;
    at.state.gateways.wake();
    let gone = EnvironmentRow { active: false, ..row };
    answer(&at.state, format, StatusCode::ACCEPTED, gone).await
}

/// The context of a write that applies to the row's current state only; 412 if `If-Match` names another one.
async fn checked(at: &At, wanted: &Preconditions, row: &EnvironmentRow) -> Result<WriteContext, ApiError> {
    let context = at.write_context();
    if !wanted.are_given() {
        return Ok(context);
    }
    let agents = at.state.store.agents_of(row.frontdoor, &[row.id]).await?;
    wanted.hold_for(&Environment::of(row.clone(), &agents))?;
    Ok(context.expecting(row.updated_at))
}

async fn find(at: &At, id: EnvironmentId) -> Result<EnvironmentRow, ApiError> {
    let row = at.state.store.environment(at.id(), id).await?;
    row.ok_or_else(|| ApiError::not_found(ResourceKind::Environment, id))
}

async fn answer(state: &AppState, format: Format, status: StatusCode, row: EnvironmentRow) -> Answer {
    let agents = state.store.agents_of(row.frontdoor, &[row.id]).await?;
    let environment = Environment::of(row, &agents);
    Ok(format.resource(status, &environment))
}
