//! `/frontdoor/v2/gateways`: the gateways of the installation, for its operator.

use super::{
    access::{Answer, Id, Operates},
    conditional::Preconditions,
    wire::{
        answer::Format,
        body::Body,
        gateway::{self, ConfirmedRemovals, Gateway},
        query::Query,
    },
};
use crate::error::{ApiError, ResourceKind};
use axum::http::StatusCode;
use wicketgate_model::GatewayId;
use wicketgate_store::{GatewayInUse, ListedGateway, StoreError};

pub(super) async fn list(Operates(caller): Operates, format: Format, query: Query) -> Answer {
    let query = query.list(gateway::PROPERTIES)?;
    let page = caller.state.store.listed_gateways(&query.request).await?;
    let rows = page.rows.into_iter().map(Gateway::of);
    Ok(format.page(Gateway::PATH, &query, page.total, rows))
}

pub(super) async fn get(at: Operates, Id(id): Id<GatewayId>, format: Format) -> Answer {
    Ok(format.resource(StatusCode::OK, &Gateway::of(find(&at, id).await?)))
}

/// A gateway that drains gets no more tunnels.
pub(super) async fn patch(
    at: Operates,
    Id(id): Id<GatewayId>,
    format: Format,
    wanted: Preconditions,
    body: Body,
) -> Answer {
    let row = find(&at, id).await?;
    let draining = gateway::draining(body.object()?)?.unwrap_or(row.draining);
    wanted.hold_for(&Gateway::of(row.clone()))?;
    if draining != row.draining {
        let Operates(caller) = &at;
        let done = caller.state.store.set_draining(id, draining, &caller.write_context()).await;
        done.map_err(missing(id))?;
    }
    get(at, Id(id), format).await
}

/// Has a gateway remove the tunnels whose removal it holds back.
pub(super) async fn confirm_removal(
    at: Operates,
    Id(id): Id<GatewayId>,
    format: Format,
    wanted: Preconditions,
    body: Body,
) -> Answer {
    let row = find(&at, id).await?;
    let ConfirmedRemovals(tunnels) = gateway::confirmed_removals(body.object()?)?;
    let held = row.held_removals.unwrap_or_default();
    wanted.hold_for(&Gateway::of(row))?;
    let Operates(caller) = &at;
    if !caller.state.store.confirm_removal(id, tunnels, &caller.write_context()).await? {
        return Err(ApiError::conflict(format!(
            "Gateway {id} holds back the removal of {held} tunnels, and not of {tunnels}: read it again, and see in its log which they are"
        )));
    }
    get(at, Id(id), format).await
}

/// From then on it has no link. One that has tunnels stays.
pub(super) async fn delete(
    at: Operates,
    Id(id): Id<GatewayId>,
    wanted: Preconditions,
) -> Result<StatusCode, ApiError> {
    wanted.hold_for(&Gateway::of(find(&at, id).await?))?;
    let Operates(caller) = at;
    let done = caller.state.store.delete_gateway(id, &caller.write_context()).await;
    match done.map_err(missing(id))? {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(GatewayInUse::InProcess) => Err(ApiError::conflict(format!(
            "Gateway {id} can't be deleted: it is a part of the server's process"
        ))),
        Err(GatewayInUse::HasTunnels(tunnels)) => Err(ApiError::conflict(format!(
            "Gateway {id} can't be deleted before its {tunnels} tunnels, whose sites dial its address: delete them first, or \
             replace its machine with a join token for it"
        ))),
    }
}

async fn find(Operates(caller): &Operates, id: GatewayId) -> Result<ListedGateway, ApiError> {
    caller.state.store.listed_gateway(id).await?.ok_or_else(|| missing(id)(StoreError::Missing))
}

pub(super) fn missing(id: GatewayId) -> impl FnOnce(StoreError) -> ApiError {
    move |error| match error {
        StoreError::Missing => ApiError::not_found(ResourceKind::Gateway, id),
        error => error.into(),
    }
}
