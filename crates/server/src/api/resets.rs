//! `/{frontdoorId}/ipsec-tunnels/{id}/reset`: rekeys or restarts the SAs of a tunnel.

use super::{
    access::Answer,
    act,
    edit::Edit,
    endpoints::gateways_of,
    refusal::{must_be_live, refused},
    tunnels,
    wire::{
        answer::Format,
        body::Body,
        execution::Execution,
        reset::{self, ResetRequest},
    },
};
use crate::{
    error::{ApiError, ResourceKind},
    gateways::Gateways,
};
use axum::{
    http::{StatusCode, header::LOCATION},
    response::IntoResponse,
};
use futures_util::future::join_all;
use tokio::sync::oneshot;
use wicketgate_model::{EspMode, GatewayId, LocationId, ResetMode, ResetScope, TunnelId};
use wicketgate_store::{Action, Resource, TunnelRow};

/// The answer does not wait for the outcome: that takes as long as the peer does.
pub(super) async fn reset(Edit { at, id, format, wanted }: Edit<TunnelId>, body: Body) -> Answer {
    let tunnel = tunnels::find(&at, id).await?;
    let ResetRequest { scope, mode } = reset::request(body.object()?)?;
    let named = tunnel.named();
    must_be_live(ResourceKind::Tunnel, named.clone(), tunnel.standing.status)?;
    let esp = at.state.gateways.esp_of(tunnel.gateway);
    must_have_sas(&tunnel, esp)?;
    let (of, location) = (gateways_of(&at.state, &tunnel).await?, tunnel.spec.location.clone());
    wanted.hold_for(&tunnels::shown(&at, tunnel).await?)?;
    let (on, context) = (Resource::Tunnel(id), at.write_context());
    let gateways = at.state.gateways.clone();
    let (read, is_read) = oneshot::channel::<()>();
    let begun = act::begin(&at.state, (at.id(), Action::Reset, on), context, async move {
        // Also if the client has hung up before.
        let _ = is_read.await;
        (reset_at_all(&gateways, of, (id, scope, mode), &location).await, ())
    });
    let (execution, _) = begun.await.map_err(refused(ResourceKind::Tunnel, named))?;
    let list = at.path("executions");
    let row = at.state.store.execution(at.id(), execution).await?;
    drop(read);
    let row = row.ok_or_else(|| ApiError::not_found(ResourceKind::Execution, execution))?;
    let path = format!("{list}/{execution}");
    let answer = Format::resource(format, StatusCode::ACCEPTED, &Execution::of(row, &list));
    Ok(([(LOCATION, path)], answer).into_response())
}

/// Resets the SAs at all gateways of the tunnel at the same time. With several, the outcome says which; it succeeds if it does at each.
async fn reset_at_all(
    gateways: &Gateways,
    of: Vec<GatewayId>,
    (tunnel, scope, mode): (TunnelId, ResetScope, ResetMode),
    location: &LocationId,
) -> Result<String, String> {
    let silent = || Err(format!("no gateway of location {location} answers"));
    if of.len() < 2 {
        let outcome = gateways.reset(of.first().copied(), tunnel, scope, mode).await;
        return outcome.unwrap_or_else(silent);
    }
    let all: Vec<_> = of.iter().map(|id| gateways.reset(Some(*id), tunnel, scope, mode)).collect();
    let outcomes: Vec<_> =
        join_all(all).await.into_iter().map(|outcome| outcome.unwrap_or_else(silent)).collect();
    let is_done = outcomes.iter().all(Result::is_ok);
    let told = of.iter().zip(outcomes);
    let told: Vec<_> =
        told.map(|(id, outcome)| format!("gateway {id}: {}", outcome.unwrap_or_else(|why| why))).collect();
    let told = told.join("; ");
    if is_done { Ok(told) } else { Err(told) }
}

fn must_have_sas(tunnel: &TunnelRow, esp: Option<EspMode>) -> Result<(), ApiError> {
    if esp == Some(EspMode::Off) {
        return Err(ApiError::conflict("The gateway runs without IPsec: there is no SA to reset"));
    }
    if !tunnel.spec.enabled {
        let named = tunnel.named();
        return Err(ApiError::conflict(format!("IPsec tunnel {named} is disabled: there is no SA to reset")));
    }
    Ok(())
}
