//! `/{frontdoorId}/ipsec-tunnels`

use super::{
    access::{Answer, At, Id, ReadsShares, WritesShares},
    edit::Edit,
    refusal::{must_be_live, not_created, refused},
    retry::retry_stale,
    wire::{
        answer::Format,
        body::Body,
        is_past_retention,
        query::Query,
        tunnel::{self, Grace, NewKey, Tunnel, TunnelPlace},
    },
};
use crate::{
    error::{ApiError, ResourceKind},
    state::{AppState, now},
};
use axum::{
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};
use wicketgate_model::{EspMode, LoadBalancerIp, PreSharedKey, Status, TunnelId};
use wicketgate_store::{Action, Reach, TunnelChange, TunnelRow, TunnelSpec, WriteContext};

pub(super) async fn list(ReadsShares(at): ReadsShares, format: Format, query: Query) -> Answer {
    let query = query.list(tunnel::PROPERTIES)?;
    let request = tunnel::resolved(query.request.clone(), &at.state.gateways);
    let page = at.state.store.tunnels(at.id(), &request).await?;
    let rows = page.rows.into_iter().map(|row| shown(&at, row));
    Ok(format.page(&at.path("ipsec-tunnels"), &query, page.total, rows))
}

pub(super) async fn get(ReadsShares(at): ReadsShares, Id(id): Id<TunnelId>, format: Format) -> Answer {
    let row = find(&at, id).await?;
    Ok(answer(&at, format, StatusCode::OK, row))
}

pub(super) async fn create(
    WritesShares(at): WritesShares,
    format: Format,
    query: Query,
    body: Body,
) -> Answer {
    let context = context(&at, takes_peer_address(&at, query)?);
    let AppState { gateways, pools, .. } = &at.state;
    let locations = gateways.locations();
    let (spec, chosen) = tunnel::spec(body.object()?, &locations, pools, Some(random_key()?), None)?;
    tunnel::check_peer(&spec, &gateways.public_addresses_at(&spec.location))?;
    let pools = pools.choosing(chosen);
    let made = at.state.store.create_tunnel(at.id(), &spec, &pools, &context).await;
    let row = made.map_err(not_created(ResourceKind::Tunnel))?;
    at.state.gateways.wake();
    let location = Tunnel::path(at.id(), row.id);
    Ok(([(LOCATION, location)], answer(&at, format, StatusCode::ACCEPTED, row)).into_response())
}

pub(super) async fn put(edit: Edit<TunnelId>, query: Query, body: Body) -> Answer {
    Box::pin(replace(edit, query, body, |_, body| body)).await
}

pub(super) async fn patch(edit: Edit<TunnelId>, query: Query, body: Body) -> Answer {
    Box::pin(replace(edit, query, body, tunnel::merged)).await
}

pub(super) async fn rotate_key(edit: Edit<TunnelId>, body: Body) -> Answer {
    let row = find(&edit.at, edit.id).await?;
    let NewKey { key, grace, cuts } = tunnel::new_key(body.object_or_nothing()?)?;
    let key = match key {
        Some(key) => key,
        None => random_key()?,
    };
    let change_of = |row: &TunnelRow| {
        let spec = TunnelSpec { pre_shared_key: Some(key.clone()), ..row.spec.clone() };
        Ok((TunnelChange { cuts, ..of(row, spec, Action::RotateKey, grace) }, None))
    };
    change(edit, row, false, change_of).await
}

pub(super) async fn delete(Edit { at, id, format, wanted }: Edit<TunnelId>) -> Answer {
    let named = find(&at, id).await?.named();
    let done = retry_stale(|| async {
        let row = find(&at, id).await?;
        must_be_live(ResourceKind::Tunnel, row.named(), row.standing.status)?;
        let context = at.write_context().expecting(row.updated_at);
        wanted.hold_for(&shown(&at, row))?;
        Ok(at.state.store.delete_tunnel(at.id(), id, &context).await)
    });
    let row = done.await?.map_err(refused(ResourceKind::Tunnel, named))?;
    at.state.gateways.wake();
    Ok(answer(&at, format, StatusCode::ACCEPTED, row))
}

/// Replaces the tunnel by the body that `whole` returns for the current state.
async fn replace(
    edit: Edit<TunnelId>,
    query: Query,
    body: Body,
    whole: impl Fn(&TunnelRow, Map<String, Value>) -> Map<String, Value>,
) -> Answer {
    let takes = takes_peer_address(&edit.at, query)?;
    let row = find(&edit.at, edit.id).await?;
    let (body, state) = (body.object()?, edit.at.state.clone());
    let change_of = |row: &TunnelRow| {
        let (key, body) = (row.spec.pre_shared_key.clone(), whole(row, body.clone()));
        let locations = state.gateways.locations();
        let (spec, chosen) = tunnel::spec(body, &locations, &state.pools, key, Some(row))?;
        tunnel::check_peer(&spec, &state.gateways.public_addresses_at(&spec.location))?;
        Ok((of(row, spec, Action::Update, Grace::default()), chosen))
    };
    change(edit, row, takes, change_of).await
}

/// The change of this row to `spec`.
fn of(row: &TunnelRow, spec: TunnelSpec, action: Action, grace: Grace) -> TunnelChange {
    TunnelChange { expected: row.generation, spec, previous_until: now() + grace.get(), cuts: false, action }
}

/// Makes the change that `change_of` returns for the tunnel `read`; repeats it with the newer state if another write was
/// faster.
async fn change(
    Edit { at, id, format, wanted }: Edit<TunnelId>,
    read: TunnelRow,
    takes_peer_address: bool,
    change_of: impl Fn(&TunnelRow) -> Result<(TunnelChange, Option<LoadBalancerIp>), ApiError>,
) -> Answer {
    let (named, mut read) = (read.named(), Some(read));
    let done = retry_stale(|| {
        let read = read.take();
        let (at, wanted, change_of) = (&at, &wanted, &change_of);
        async move {
            let row = match read {
                Some(row) => row,
                None => find(at, id).await?,
            };
            must_be_live(ResourceKind::Tunnel, row.named(), row.standing.status)?;
            let (change, chosen) = change_of(&row)?;
            wanted.hold_for(&shown(at, row.clone()))?;
            let is_update = change.action == Action::Update;
            if is_update
                && change.spec == row.spec
                && chosen.is_none()
                && row.peer_address_taken_at.is_none()
                && row.standing.status != Status::Error
            {
                // Nothing changes: no write, no record, no event. A tunnel in `ERROR` is retried.
                return Ok(Ok(row));
            }
            let context = context(at, takes_peer_address);
            let pools = at.state.pools.choosing(chosen);
            Ok(at.state.store.replace_tunnel(at.id(), id, &change, &pools, &context).await)
        }
    });
    let row = done.await?.map_err(refused(ResourceKind::Tunnel, named))?;
    at.state.gateways.wake();
    Ok(answer(&at, format, StatusCode::ACCEPTED, row))
}

/// Whether the operator decides that the tunnel has its peer's address, whichever tunnel has it now.
fn takes_peer_address(at: &At, query: Query) -> Result<bool, ApiError> {
    let [takes] = query.values(["takePeerAddress"])?;
    match takes.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") if at.principal.reach == Reach::All => Ok(true),
        Some("true") => {
            Err(ApiError::not_authorized("Only the operator, with the admin token, may use takePeerAddress"))
        }
        Some(_) => Err(ApiError::bad_request("Value for takePeerAddress must be of type boolean")),
    }
}

fn context(at: &At, takes_peer_address: bool) -> WriteContext {
    WriteContext { takes_peer_address, ..at.write_context() }
}

pub(super) async fn find(at: &At, id: TunnelId) -> Result<TunnelRow, ApiError> {
    let row = at.state.store.tunnel(at.id(), id).await?;
    row.filter(|t| !is_past_retention(t.deleted_at))
        .ok_or_else(|| ApiError::not_found(ResourceKind::Tunnel, id))
}

fn random_key() -> Result<PreSharedKey, ApiError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    Ok(PreSharedKey::from_random(random))
}

pub(super) fn shown(at: &At, row: TunnelRow) -> Tunnel {
    let (gateways, gateway) = (&at.state.gateways, row.gateway);
    // Its number tells how many tunnels others have.
    let is_operator = at.principal.reach == Reach::All;
    let place = TunnelPlace {
        address: gateways.public_address_of(gateway),
        namespace: gateways.namespace_of(gateway, row.slot).filter(|_| is_operator),
        is_without_ipsec: gateways.esp_of(gateway) == Some(EspMode::Off),
    };
    Tunnel::of(row, place)
}

fn answer(at: &At, format: Format, status: StatusCode, row: TunnelRow) -> Response {
    format.resource(status, &shown(at, row))
}
