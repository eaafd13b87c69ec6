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
use wicketgate_model::{ConnectionState, EspMode, ShareId, TunnelId};
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
    must_be_live(ResourceKind::Share, share.named(), share.standing.status)?;
    let begin = Instant::now();
    let tunnel = tunnels::find(&at, share.spec.tunnel).await?;
    let environment = at.state.store.environment(at.id(), share.spec.environment).await?;
    let was_up = was_up(&at, tunnel.id).await?;
    let read_took = begin.elapsed();
    let begin = Instant::now();
    let seen = at.state.gateways.check(&tunnel.spec.location, share.id).await;
    let took = begin.elapsed();
    let has_ipsec = at.state.gateways.esp_at(&tunnel.spec.location) != Some(EspMode::Off);
    let unanswered = at.state.gateways.unanswered(&tunnel.spec.location, share.id);
    let walked = check::Walked {
        share: &share,
        tunnel: &tunnel,
        environment: environment.map(|environment| environment.named()),
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
