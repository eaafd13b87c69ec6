//! `/{frontdoorId}/agents`

use super::{
    access::{InFrontdoor, PathId},
    conditional::Preconditions,
    refusal::refused,
    wire::{
        agent::{self, Agent},
        answer::Format,
        query::Query,
    },
};
use crate::{
    auth::Scope,
    error::{ApiError, ResourceKind},
    state::AppState,
};
use axum::{extract::State, http::StatusCode, response::Response};
use std::collections::HashMap;
use wicketgate_model::AgentId;
use wicketgate_store::AgentRow;

pub(super) async fn list(
    State(state): State<AppState>,
    at: InFrontdoor,
    format: Format,
    query: Query,
) -> Result<Response, ApiError> {
    at.need(Scope::Read)?;
    let query = query.list(agent::PROPERTIES)?;
    let page = state.store.agents(at.id(), &query.request).await?;
    let rows = seen(&state, page.rows).await.into_iter();
    Ok(format.page(&at.path("agents"), &query, page.total, rows))
}

pub(super) async fn get(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
) -> Result<Response, ApiError> {
    at.need(Scope::Read)?;
    let id: AgentId = id.parse(ResourceKind::Agent)?;
    let row = state.store.agent(at.id(), id).await?;
    let row = row.ok_or_else(|| ApiError::not_found(ResourceKind::Agent, id))?;
    let agent = seen(&state, vec![row]).await.pop();
    let agent = agent.ok_or_else(|| ApiError::not_found(ResourceKind::Agent, id))?;
    Ok(format.resource(StatusCode::OK, &agent))
}

/// With what the connected ones have said of their shares.
async fn seen(state: &AppState, rows: Vec<AgentRow>) -> Vec<Agent> {
    let connected: Vec<_> =
        rows.iter().filter(|row| row.connected_since.is_some()).map(|row| row.id).collect();
    let reported = state.gateways.agent_shares(&connected).await;
    let mut reported: HashMap<_, _> = reported.into_iter().map(|agent| (agent.agent, agent)).collect();
    let seen = |row: AgentRow| {
        let shares = reported.remove(&row.id);
        Agent::seen(row, shares)
    };
    rows.into_iter().map(seen).collect()
}

/// Bars it: the gateways cut its connections.
pub(super) async fn delete(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    wanted: Preconditions,
) -> Result<StatusCode, ApiError> {
    at.need(Scope::Write)?;
    let id: AgentId = id.parse(ResourceKind::Agent)?;
    let row = state.store.agent(at.id(), id).await?;
    wanted.hold_for(&Agent::of(row.ok_or_else(|| ApiError::not_found(ResourceKind::Agent, id))?))?;
    let done = state.store.bar_agent(at.id(), id, &state.write_context(&at.principal)).await;
    done.map_err(refused(ResourceKind::Agent, id))?;
    state.wake.notify_one();
    Ok(StatusCode::NO_CONTENT)
}
