//! `/{frontdoorId}/ipsec-tunnels`

use super::{
    access::{InFrontdoor, PathId},
    conditional::Preconditions,
    refusal::{not_created, refused},
    retry::retry_stale,
    wire::{
        answer::Format,
        body::Body,
        is_past_retention,
        query::Query,
        tunnel::{self, Grace, Tunnel},
    },
};
use crate::{
    auth::Scope,
    error::{ApiError, ResourceKind},
    state::{AppState, now},
};
use axum::{
    extract::State,
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use wicketgate_model::{LocationId, PreSharedKey, Status, TunnelId};
use wicketgate_store::{Action, StoreError, TunnelChange, TunnelRow, TunnelSpec};

pub(super) async fn list(
    State(state): State<AppState>,
    at: InFrontdoor,
    format: Format,
    query: Query,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Read)?;
    let query = query.list(tunnel::PROPERTIES)?;
    let address = |location: &LocationId| state.gateway_address(location);
    let request = tunnel::resolved(query.request.clone(), &state.locations, address);
    let page = state.store.tunnels(at.id(), &request).await?;
    let rows = page.rows.into_iter().map(|row| shown(&state, row));
    Ok(format.page(&at.path("ipsec-tunnels"), &query, page.total, rows))
}

pub(super) async fn get(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Read)?;
    let row = find(&state, &at, id.parse(ResourceKind::Tunnel)?).await?;
    Ok(answer(&state, format, StatusCode::OK, row))
}

pub(super) async fn create(
    State(state): State<AppState>,
    at: InFrontdoor,
    format: Format,
    body: Body,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Write)?;
    let spec = tunnel::spec(body.object()?, &state.locations, random_key()?, None)?;
    let made =
        state.store.create_tunnel(at.id(), &spec, &state.pools, &state.write_context(&at.principal)).await;
    let row = made.map_err(not_created(ResourceKind::Tunnel))?;
    state.wake.notify_one();
    let location = Tunnel::path(at.id(), row.id);
    Ok(([(LOCATION, location)], answer(&state, format, StatusCode::ACCEPTED, row)).into_response())
}

pub(super) async fn put(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
    wanted: Preconditions,
    body: Body,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Write)?;
    let row = find(&state, &at, id.parse(ResourceKind::Tunnel)?).await?;
    let body = body.object()?;
    let row = change(&state, &at, row, &wanted, |row| {
        let spec = tunnel::spec(body.clone(), &state.locations, row.key.clone(), Some(row))?;
        Ok(of(row, spec, Action::Update, Grace::default()))
    });
    Ok(answer(&state, format, StatusCode::ACCEPTED, row.await?))
}

pub(super) async fn patch(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
    wanted: Preconditions,
    body: Body,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Write)?;
    let row = find(&state, &at, id.parse(ResourceKind::Tunnel)?).await?;
    let patch = body.object()?;
    let row = change(&state, &at, row, &wanted, |row| {
        let whole = tunnel::merged(row, patch.clone());
        let spec = tunnel::spec(whole, &state.locations, row.key.clone(), Some(row))?;
        Ok(of(row, spec, Action::Update, Grace::default()))
    });
    Ok(answer(&state, format, StatusCode::ACCEPTED, row.await?))
}

pub(super) async fn rotate_key(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
    wanted: Preconditions,
    body: Body,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Write)?;
    let row = find(&state, &at, id.parse(ResourceKind::Tunnel)?).await?;
    let (key, grace) = tunnel::new_key(body.object_or_nothing()?)?;
    let key = match key {
        Some(key) => key,
        None => random_key()?,
    };
    let row = change(&state, &at, row, &wanted, |row| {
        let spec = TunnelSpec { key: key.clone(), ..row.spec() };
        Ok(of(row, spec, Action::RotateKey, grace))
    });
    Ok(answer(&state, format, StatusCode::ACCEPTED, row.await?))
}

pub(super) async fn delete(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
    wanted: Preconditions,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Write)?;
    let id: TunnelId = id.parse(ResourceKind::Tunnel)?;
    let done = retry_stale(|| async {
        let row = find(&state, &at, id).await?;
        must_be_live(&row)?;
        let context = state.write_context(&at.principal).expecting(row.updated_at);
        wanted.hold_for(&shown(&state, row))?;
        Ok(state.store.delete_tunnel(at.id(), id, &context).await)
    });
    let row = done.await?.map_err(refused(ResourceKind::Tunnel, id))?;
    state.wake.notify_one();
    Ok(answer(&state, format, StatusCode::ACCEPTED, row))
}

/// The change of this row to `spec`.
fn of(row: &TunnelRow, spec: TunnelSpec, action: Action, grace: Grace) -> TunnelChange {
    TunnelChange { expected: row.generation, spec, previous_until: now() + grace.get(), action }
}

/// Changes the tunnel `read` by what `make` answers for it, and for later states of it while others are faster.
async fn change(
    state: &AppState,
    at: &InFrontdoor,
    read: TunnelRow,
    wanted: &Preconditions,
    make: impl Fn(&TunnelRow) -> Result<TunnelChange, ApiError>,
) -> Result<TunnelRow, ApiError> {
    let (id, make, mut read) = (read.id, &make, Some(read));
    let done = retry_stale(|| {
        let read = read.take();
        async move {
            let row = match read {
                Some(row) => row,
                None => find(state, at, id).await?,
            };
            must_be_live(&row)?;
            let change = make(&row)?;
            wanted.hold_for(&shown(state, row.clone()))?;
            let is_update = change.action == Action::Update;
            if is_update && change.spec == row.spec() && row.standing.status != Status::Error {
                // Nothing changes: no write, no record, no event. A tunnel in `ERROR` is retried.
                return Ok(Ok(row));
            }
            let context = state.write_context(&at.principal);
            Ok(state.store.replace_tunnel(at.id(), id, &change, &state.pools, &context).await)
        }
    });
    let row = done.await?.map_err(refused(ResourceKind::Tunnel, id))?;
    state.wake.notify_one();
    Ok(row)
}

fn must_be_live(row: &TunnelRow) -> Result<(), ApiError> {
    match row.standing.status {
        status @ (Status::Deleting | Status::Deleted) => {
            Err(refused(ResourceKind::Tunnel, row.id)(StoreError::NotLive(status)))
        }
        _ => Ok(()),
    }
}

pub(super) async fn find(state: &AppState, at: &InFrontdoor, id: TunnelId) -> Result<TunnelRow, ApiError> {
    let row = state.store.tunnel(at.id(), id).await?;
    row.filter(|t| !is_past_retention(t.deleted_at))
        .ok_or_else(|| ApiError::not_found(ResourceKind::Tunnel, id))
}

fn random_key() -> Result<PreSharedKey, ApiError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|_| ApiError::unavailable("The server could not generate random bytes; try again"))?;
    Ok(PreSharedKey::from_random(random))
}

fn shown(state: &AppState, row: TunnelRow) -> Tunnel {
    let address = state.gateway_address(&row.location);
    Tunnel::of(row, address)
}

fn answer(state: &AppState, format: Format, status: StatusCode, row: TunnelRow) -> Response {
    format.resource(status, &shown(state, row))
}
