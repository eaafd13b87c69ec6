//! `/{frontdoorId}/agents`

use super::{
    access::{Answer, At, Id, Reads, Writes},
    conditional::Preconditions,
    edit::Edit,
    refusal::refused,
    wire::{
        agent::{self, Agent},
        answer::Format,
        body::Body,
        query::Query,
    },
};
use crate::{
    error::{ApiError, ResourceKind},
    state::AppState,
};
use axum::http::StatusCode;
use std::collections::HashMap;
use wicketgate_model::AgentId;
use wicketgate_store::AgentRow;

pub(super) async fn list(Reads(at): Reads, format: Format, query: Query) -> Answer {
    let query = query.list(agent::PROPERTIES)?;
    let page = at.state.store.agents(at.id(), &query.request).await?;
    let rows = seen(&at.state, page.rows).await.into_iter();
    Ok(format.page(&at.path("agents"), &query, page.total, rows))
}

pub(super) async fn get(Reads(at): Reads, Id(id): Id<AgentId>, format: Format) -> Answer {
    let row = find(&at, id).await?;
    answer(&at, format, row).await
}

pub(super) async fn patch(Edit { at, id, format, wanted }: Edit<AgentId>, body: Body) -> Answer {
    let row = find(&at, id).await?;
    let name = agent::name(&row, body.object()?)?;
    wanted.hold_for(&Agent::of(row.clone()))?;
    if name == row.given_name {
        return answer(&at, format, row).await;
    }
    let done = at.state.store.rename_agent(at.id(), id, name, &at.write_context()).await;
    done.map_err(refused(ResourceKind::Agent, row.named()))?;
    let row = find(&at, id).await?;
    answer(&at, format, row).await
}

async fn find(at: &At, id: AgentId) -> Result<AgentRow, ApiError> {
    let row = at.state.store.agent(at.id(), id).await?;
    row.ok_or_else(|| ApiError::not_found(ResourceKind::Agent, id))
}

async fn answer(at: &At, format: Format, row: AgentRow) -> Answer {
    let id = row.id;
    let report = at.state.store.agent_report(id).await?;
    let agent = seen(&at.state, vec![row]).await.pop();
    let agent = agent.ok_or_else(|| ApiError::not_found(ResourceKind::Agent, id))?;
    Ok(format.resource(StatusCode::OK, &agent.with_report(report)))
}

/// With the share states that connected agents have reported.
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

/// Bars the agent: the gateways close its connections.
pub(super) async fn delete(
    Writes(at): Writes,
    Id(id): Id<AgentId>,
    wanted: Preconditions,
) -> Result<StatusCode, ApiError> {
    let row = find(&at, id).await?;
    let named = row.named();
    wanted.hold_for(&Agent::of(row))?;
    let done = at.state.store.bar_agent(at.id(), id, &at.write_context()).await;
    done.map_err(refused(ResourceKind::Agent, named))?;
    at.state.gateways.wake();
    Ok(StatusCode::NO_CONTENT)
}
