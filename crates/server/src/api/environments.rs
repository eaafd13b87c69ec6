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
use wicketgate_model::EnvironmentKey;
use wicketgate_store::{EnvironmentRow, WriteContext};

pub(super) async fn list(Reads(at): Reads, format: Format, query: Query) -> Answer {
    let query = query.list(environment::PROPERTIES)?;
    let page = at.state.store.environments(at.id(), &query.request).await?;
    let ids: Vec<_> = page.rows.iter().map(|row| row.id).collect();
    let agents = at.state.store.agents_of(at.id(), &ids).await?;
    let rows = page.rows.into_iter().map(|row| Environment::of(row, &agents));
    Ok(format.page(&at.path("environments"), &query, page.total, rows))
}

pub(super) async fn get(Reads(at): Reads, Id(key): Id<EnvironmentKey>, format: Format) -> Answer {
    let row = find(&at, &key).await?;
    answer(&at.state, format, StatusCode::OK, row).await
}

pub(super) async fn patch(edit: Edit<EnvironmentKey>, body: Body) -> Answer {
    let Edit { at, id: key, format, wanted } = edit;
    let row = find(&at, &key).await?;
    let name = environment::name(&row, body.object()?)?;
    let context = checked(&at, &wanted, &row).await?;
    if name == row.name {
        return answer(&at.state, format, StatusCode::OK, row).await;
    }
    let done = at.state.store.rename_environment(at.id(), row.id, &name, &context).await;
    done.map_err(refused(ResourceKind::Environment, row.named()))?;
    let row = find(&at, &EnvironmentKey::Id(row.id)).await?;
    answer(&at.state, format, StatusCode::OK, row).await
}

/// Deletes the shares too, which takes the gateway time: 202. The environment disappears from the API at once.
pub(super) async fn delete(Edit { at, id: key, format, wanted }: Edit<EnvironmentKey>) -> Answer {
    let row = find(&at, &key).await?;
    let context = checked(&at, &wanted, &row).await?;
    let done = at.state.store.delete_environment(at.id(), row.id, &context).await;
    done.map_err(refused(ResourceKind::Environment, row.named()))?;
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

async fn find(at: &At, key: &EnvironmentKey) -> Result<EnvironmentRow, ApiError> {
    let row = at.state.store.environment_of(at.id(), key).await?;
    row.ok_or_else(|| match key {
        EnvironmentKey::Id(id) => ApiError::not_found(ResourceKind::Environment, id),
        EnvironmentKey::ZId(z_id) => ApiError::not_found(ResourceKind::Environment, z_id),
    })
}

async fn answer(state: &AppState, format: Format, status: StatusCode, row: EnvironmentRow) -> Answer {
    let agents = state.store.agents_of(row.frontdoor, &[row.id]).await?;
    let environment = Environment::of(row, &agents);
    Ok(format.resource(status, &environment))
}
