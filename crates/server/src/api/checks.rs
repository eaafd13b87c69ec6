//! `/{frontdoorId}/ipsec-shares/{id}/check`: walks a share's path hop by hop, up to a dial of its target.

use super::{
    access::{Answer, Id, ReadsShares},
    endpoints::best_gateway,
    refusal::must_be_live,
    shares, tunnels,
    wire::{answer::Format, body::Body, check},
};
use crate::{
    error::{ApiError, ResourceKind},
    gateways::TooManyChecks,
    state::{AppState, now},
};
use axum::{
    http::{HeaderValue, StatusCode, header::CACHE_CONTROL},
    response::IntoResponse,
};
use std::time::Instant;
use wicketgate_model::{ConnectionState, EspMode, ShareId, TunnelId};
use wicketgate_store::{
    Filter, FilterValue, ListRequest, PageRequest, ShareRow, TunnelRow, column::connection_change,
};

/// Changes nothing. The number of concurrent dials is bounded, and that of one organization, too.
pub(super) async fn walk(
    ReadsShares(at): ReadsShares,
    Id(id): Id<ShareId>,
    format: Format,
    body: Body,
) -> Answer {
    let share = shares::find(&at, id).await?;
    check::nothing(body.object_or_nothing()?)?;
    must_be_live(ResourceKind::Share, share.named(), share.standing.status)?;
    let tunnel = tunnels::find(&at, share.spec.tunnel).await?;
    let check = walked(&at.state, &share, &tunnel, check::Check::of).await?;
    let links = check::links(&share);
    let answer = format.one(StatusCode::OK, &check, links);
    // The answer describes this moment: caches must not keep it.
    Ok(([(CACHE_CONTROL, HeaderValue::from_static("no-cache"))], answer).into_response())
}

/// Walks the path, and returns what `show` makes of the results.
pub(super) async fn walked<T>(
    state: &AppState,
    share: &ShareRow,
    tunnel: &TunnelRow,
    show: impl FnOnce(&check::Walked<'_>) -> T,
) -> Result<T, ApiError> {
    let begin = Instant::now();
    let environment = state.store.environment(share.frontdoor, share.spec.environment).await?;
    let environment = environment.map(|environment| environment.named());
    let was_up = was_up(state, tunnel.id).await?;
    let frontdoor = state.store.frontdoor(share.frontdoor).await?;
    let organization = frontdoor.map(|frontdoor| frontdoor.spec.organization).unwrap_or_default();
    let read_took = begin.elapsed();
    // With several gateways, the better path is the one that connections take.
    let gateway = best_gateway(state, tunnel).await?;
    let begin = Instant::now();
    let seen = state.gateways.check(gateway, share.id, &organization).await.map_err(refused)?;
    let took = begin.elapsed();
    let has_ipsec = state.gateways.esp_of(gateway) != Some(EspMode::Off);
    let unanswered = state.gateways.unanswered(gateway, share.id);
    let at = now();
    Ok(show(&check::Walked {
        share,
        tunnel,
        environment,
        has_ipsec,
        was_up,
        read_took,
        seen,
        took,
        unanswered,
        at,
    }))
}

fn refused(why: TooManyChecks) -> ApiError {
    let whose = match why {
        TooManyChecks::OfOrganization => "this organization",
        TooManyChecks::OfGateway => "the gateway",
    };
    ApiError::too_many_requests(format!(
        "As many checks of {whose} run as may run at a time: wait for their answers, and check again"
    ))
}

/// Whether the tunnel's peer was connected at some time.
async fn was_up(state: &AppState, tunnel: TunnelId) -> Result<bool, ApiError> {
    let values = vec![FilterValue::Text(ConnectionState::Up.as_str().to_owned())];
    let request = ListRequest {
        page: PageRequest { number: 0, size: 1 },
        filters: vec![Filter { column: &connection_change::STATE, values }],
        ..ListRequest::default()
    };
    Ok(state.store.connection_changes(tunnel, &request).await?.total > 0)
}
