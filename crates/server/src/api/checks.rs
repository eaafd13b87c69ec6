//! `/{frontdoorId}/ipsec-shares/{id}/check`: walks a share's path hop by hop, up to a dial of its target.

use super::{
    access::{Answer, At, Id, ReadsShares},
    refusal::must_be_live,
    shares, tunnels,
    wire::{answer::Format, body::Body, check},
};
use crate::{
    error::{ApiError, ResourceKind},
    state::now,
};
use axum::{
    http::{HeaderValue, StatusCode, header::CACHE_CONTROL},
    response::IntoResponse,
};
use std::time::Instant;
use wicketgate_model::{AgentId, ConnectionState, EspMode, Problem, ShareId, TunnelId};
use wicketgate_store::{Filter, FilterValue, ListRequest, PageRequest, column::connection_change};

/// Changes nothing. The number of concurrent dials is bounded.
pub(super) async fn walk(
    ReadsShares(at): ReadsShares,
    Id(id): Id<ShareId>,
    format: Format,
    body: Body,
) -> Answer {
    let share = shares::find(&at, id).await?;
    check::nothing(body.object_or_nothing()?)?;
    must_be_live(ResourceKind::Share, share.id, share.standing.status)?;
    let begin = Instant::now();
    let tunnel = tunnels::find(&at, share.spec.tunnel).await?;
    let was_up = was_up(&at, tunnel.id).await?;
    let read_took = begin.elapsed();
    let begin = Instant::now();
    let mut seen = at.state.gateways.check(&tunnel.spec.location, share.id).await;
    let took = begin.elapsed();
    if let Some(seen) = &mut seen {
        for problem in [seen.agent_problem.as_mut(), seen.dialled.as_mut().err()].into_iter().flatten() {
            name_agents(&at, problem).await?;
        }
    }
    let has_ipsec = at.state.gateways.esp_at(&tunnel.spec.location) != Some(EspMode::Off);
    let unanswered = at.state.gateways.unanswered(&tunnel.spec.location, share.id);
    let walked = check::Walked {
        share: &share,
        tunnel: &tunnel,
        has_ipsec,
        was_up,
        read_took,
        seen,
        took,
        unanswered,
        at: now(),
    };
    let links = check::links(&share);
    let answer = format.one(StatusCode::OK, &check::Check::of(&walked), links);
    // The answer describes this moment: caches must not keep it.
    Ok(([(CACHE_CONTROL, HeaderValue::from_static("no-cache"))], answer).into_response())
}

/// Gateways know agents by the names that they report. Callers may have given them others.
async fn name_agents(at: &At, problem: &mut Problem) -> Result<(), ApiError> {
    let agents: Vec<AgentId> =
        problem.message.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    for id in agents {
        if let Some(agent) = at.state.store.agent(at.id(), id).await?
            && let Some(given) = agent.given_name
        {
            let reported = format!("{id} ({})", agent.name);
            problem.message = problem.message.replace(&reported, &format!("{id} ({given})"));
        }
    }
    Ok(())
}

/// Whether the tunnel's peer was connected at some time.
async fn was_up(at: &At, tunnel: TunnelId) -> Result<bool, ApiError> {
    let values = vec![FilterValue::Text(ConnectionState::Up.as_str().to_owned())];
    let request = ListRequest {
        page: PageRequest { number: 0, size: 1 },
        filters: vec![Filter { column: &connection_change::STATE, values }],
        ..ListRequest::default()
    };
    Ok(at.state.store.connection_changes(tunnel, &request).await?.total > 0)
}
