//! `/{frontdoorId}/ipsec-tunnels/{id}/reset`: rekeys or restarts the SAs of a tunnel.

use super::{
    access::Answer,
    act,
    edit::Edit,
    refusal::{must_be_live, refused},
    tunnels,
    wire::{
        answer::Format,
        body::Body,
        execution::Execution,
        reset::{self, ResetRequest},
    },
};
use crate::error::{ApiError, ResourceKind};
use axum::{
    http::{StatusCode, header::LOCATION},
    response::IntoResponse,
};
use tokio::sync::oneshot;
use wicketgate_model::{EspMode, TunnelId};
use wicketgate_store::{Action, Resource, TunnelRow};

/// The answer does not wait for the outcome: that takes as long as the peer does.
pub(super) async fn reset(Edit { at, id, format, wanted }: Edit<TunnelId>, body: Body) -> Answer {
    let tunnel = tunnels::find(&at, id).await?;
    let ResetRequest { scope, mode } = reset::request(body.object()?)?;
    let named = tunnel.named();
    must_be_live(ResourceKind::Tunnel, named.clone(), tunnel.standing.status)?;
    let esp = at.state.gateways.esp_of(tunnel.gateway);
    must_have_sas(&tunnel, esp)?;
    let (gateway, location) = (tunnel.gateway, tunnel.spec.location.clone());
    wanted.hold_for(&tunnels::shown(&at, tunnel))?;
    let (on, context) = (Resource::Tunnel(id), at.write_context());
    let gateways = at.state.gateways.clone();
    let (read, is_read) = oneshot::channel::<()>();
    let begun = act::begin(&at.state, (at.id(), Action::Reset, on), context, async move {
        // Also if the client has hung up before.
        let _ = is_read.await;
        let outcome = gateways.reset(gateway, id, scope, mode).await;
        (outcome.unwrap_or_else(|| Err(format!("no gateway of location {location} answers"))), ())
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
