//! `/{frontdoorId}/ipsec-tunnels`

use super::{
    access::{InFrontdoor, PathId},
    conditional::Preconditions,
    shares::{TRIES, is_forgotten},
    wire::{
        answer::Format,
        body::Body,
        query::Query,
        tunnel::{self, Grace, Tunnel},
    },
};
use crate::{
    auth::Scope,
    error::{ApiError, Kind, refused},
    state::AppState,
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
    let query = query.list(&wicketgate_store::TUNNELS)?;
    let address = |location: &LocationId| state.gateway_address(location);
    let request = tunnel::resolved(query.request.clone(), &state.locations, address);
    let page = state.store.tunnels(at.id(), &request).await?;
    let rows = page.rows.into_iter().map(|row| shown(&state, row)).map(|t| {
        let links = t.links();
        (t, links)
    });
    Ok(format.page("ipsecTunnelList", &at.path("ipsec-tunnels"), &query, page.total, rows.collect()))
}

pub(super) async fn get(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Read)?;
    let row = find(&state, &at, id.parse(Kind::Tunnel)?).await?;
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
    let made = state.store.create_tunnel(at.id(), &spec, &state.pools, &state.act(&at.principal)).await;
    let row = made.map_err(refused(Kind::Tunnel, ""))?;
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
    let id = id.parse(Kind::Tunnel)?;
    find(&state, &at, id).await?;
    let body = body.object()?;
    let spec = |row: &TunnelRow| tunnel::spec(body.clone(), &state.locations, row.key.clone(), Some(row));
    change(&state, &at, id, format, &wanted, (Action::Update, Grace::default()), spec).await
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
    let id = id.parse(Kind::Tunnel)?;
    find(&state, &at, id).await?;
    let patch = body.object()?;
    let spec = |row: &TunnelRow| {
        let whole = tunnel::patched(row, patch.clone());
        tunnel::spec(whole, &state.locations, row.key.clone(), Some(row))
    };
    change(&state, &at, id, format, &wanted, (Action::Update, Grace::default()), spec).await
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
    let id = id.parse(Kind::Tunnel)?;
    find(&state, &at, id).await?;
    let (key, grace) = tunnel::new_key(body.object_or_nothing()?)?;
    let key = match key {
        Some(key) => key,
        None => random_key()?,
    };
    let spec = |row: &TunnelRow| Ok(TunnelSpec { key: key.clone(), ..row.spec() });
    change(&state, &at, id, format, &wanted, (Action::RotateKey, grace), spec).await
}

pub(super) async fn delete(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
    wanted: Preconditions,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Write)?;
    let id: TunnelId = id.parse(Kind::Tunnel)?;
    let mut last = StoreError::Stale;
    for _ in 0..TRIES {
        let row = find(&state, &at, id).await?;
        must_be_live(&row)?;
        let act = state.act(&at.principal).expecting(row.updated_at);
        wanted.hold_for(&shown(&state, row))?;
        match state.store.delete_tunnel(at.id(), id, &act).await {
            Err(stale @ StoreError::Stale) => last = stale,
            done => {
                let row = done.map_err(refused(Kind::Tunnel, id))?;
                state.wake.notify_one();
                return Ok(answer(&state, format, StatusCode::ACCEPTED, row));
            }
        }
    }
    Err(refused(Kind::Tunnel, id)(last))
}

/// Replaces the tunnel by what `spec` makes of it, and again if somebody else was faster.
async fn change(
    state: &AppState,
    at: &InFrontdoor,
    id: TunnelId,
    format: Format,
    wanted: &Preconditions,
    (action, grace): (Action, Grace),
    spec: impl Fn(&TunnelRow) -> Result<TunnelSpec, ApiError>,
) -> Result<Response, ApiError> {
    let mut last = StoreError::Stale;
    for _ in 0..TRIES {
        let row = find(state, at, id).await?;
        must_be_live(&row)?;
        let spec = spec(&row)?;
        let act = state.act(&at.principal);
        wanted.hold_for(&shown(state, row.clone()))?;
        if spec == row.spec() && action == Action::Update && row.standing.status != Status::Error {
            // It is that already: no write, no record, no event. What failed is tried anew.
            return Ok(answer(state, format, StatusCode::ACCEPTED, row));
        }
        let change =
            TunnelChange { expected: row.generation, spec, previous_until: act.at + grace.get(), action };
        match state.store.replace_tunnel(at.id(), id, &change, &state.pools, &act).await {
            Err(stale @ StoreError::Stale) => last = stale,
            done => {
                let row = done.map_err(refused(Kind::Tunnel, id))?;
                state.wake.notify_one();
                return Ok(answer(state, format, StatusCode::ACCEPTED, row));
            }
        }
    }
    Err(refused(Kind::Tunnel, id)(last))
}

fn must_be_live(row: &TunnelRow) -> Result<(), ApiError> {
    match row.standing.status {
        status @ (Status::Deleting | Status::Deleted) => {
            Err(refused(Kind::Tunnel, row.id)(StoreError::NotLive(status)))
        }
        _ => Ok(()),
    }
}

pub(super) async fn find(state: &AppState, at: &InFrontdoor, id: TunnelId) -> Result<TunnelRow, ApiError> {
    let row = state.store.tunnel(at.id(), id).await?;
    row.filter(|t| !is_forgotten(t.deleted_at)).ok_or_else(|| ApiError::not_found(Kind::Tunnel, id))
}

fn random_key() -> Result<PreSharedKey, ApiError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|_| ApiError::unavailable("The server has no random bytes"))?;
    Ok(PreSharedKey::from_random(random))
}

fn shown(state: &AppState, row: TunnelRow) -> Tunnel {
    let address = state.gateway_address(&row.location);
    Tunnel::of(row, address)
}

fn answer(state: &AppState, format: Format, status: StatusCode, row: TunnelRow) -> Response {
    let tunnel = shown(state, row);
    let links = tunnel.links();
    format.one(status, &tunnel, links)
}
