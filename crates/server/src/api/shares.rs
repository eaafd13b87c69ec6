//! `/{frontdoorId}/ipsec-shares`

use super::{
    access::{InFrontdoor, PathId},
    conditional::Preconditions,
    wire::{
        answer::Format,
        body::Body,
        query::Query,
        share::{self, Share},
    },
};
use crate::{
    auth::Scope,
    error::{ApiError, Kind, refused},
    state::{AppState, now},
};
use axum::{
    extract::State,
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde_json::{Map, Value};
use wicketgate_model::{ShareId, Status};
use wicketgate_store::{ShareRow, StoreError};

/// How often a change is made anew on top of somebody else's before the caller is told.
pub(super) const TRIES: usize = 5;

/// Whether it is past its retention.
pub(super) fn is_forgotten(deleted_at: Option<Timestamp>) -> bool {
    deleted_at.is_some_and(|at| now().duration_since(at) > super::wire::RETENTION)
}

pub(super) async fn list(
    State(state): State<AppState>,
    at: InFrontdoor,
    format: Format,
    query: Query,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Read)?;
    let query = query.list(&wicketgate_store::SHARES)?;
    let page = state.store.shares(at.id(), &query.request).await?;
    let rows = page.rows.into_iter().map(Share::of).map(|s| {
        let links = s.links();
        (s, links)
    });
    Ok(format.page("ipsecShareList", &at.path("ipsec-shares"), &query, page.total, rows.collect()))
}

pub(super) async fn get(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Read)?;
    let row = find(&state, &at, id.parse(Kind::Share)?).await?;
    Ok(answer(format, StatusCode::OK, row))
}

pub(super) async fn create(
    State(state): State<AppState>,
    at: InFrontdoor,
    format: Format,
    body: Body,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Write)?;
    let body = body.object()?;
    let mut last = StoreError::Stale;
    for _ in 0..TRIES {
        let spec = share::spec(&state.store, at.id(), body.clone()).await?;
        match state.store.create_share(at.id(), &spec, &state.act(&at.principal)).await {
            // Its tunnel was changed since it was looked at.
            Err(stale @ StoreError::Stale) => last = stale,
            made => return Ok(created(&state, &at, format, made.map_err(refused(Kind::Share, ""))?)),
        }
    }
    Err(refused(Kind::Share, "")(last))
}

fn created(state: &AppState, at: &InFrontdoor, format: Format, row: ShareRow) -> Response {
    state.wake.notify_one();
    let location = Share::path(at.id(), row.id);
    ([(LOCATION, location)], answer(format, StatusCode::ACCEPTED, row)).into_response()
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
    let id = id.parse(Kind::Share)?;
    find(&state, &at, id).await?;
    let body = body.object()?;
    change(&state, &at, id, format, &wanted, |_| body.clone()).await
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
    let id = id.parse(Kind::Share)?;
    find(&state, &at, id).await?;
    let patch = body.object()?;
    change(&state, &at, id, format, &wanted, |row| share::patched(row, patch.clone())).await
}

pub(super) async fn delete(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
    wanted: Preconditions,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Write)?;
    let id: ShareId = id.parse(Kind::Share)?;
    let mut last = StoreError::Stale;
    for _ in 0..TRIES {
        let row = find(&state, &at, id).await?;
        must_be_live(&row)?;
        let act = state.act(&at.principal).expecting(row.updated_at);
        wanted.hold_for(&Share::of(row))?;
        match state.store.delete_share(at.id(), id, &act).await {
            Err(stale @ StoreError::Stale) => last = stale,
            done => {
                let row = done.map_err(refused(Kind::Share, id))?;
                state.wake.notify_one();
                return Ok(answer(format, StatusCode::ACCEPTED, row));
            }
        }
    }
    Err(refused(Kind::Share, id)(last))
}

/// Replaces the share by what `body` makes of it, and again if somebody else was faster.
async fn change(
    state: &AppState,
    at: &InFrontdoor,
    id: ShareId,
    format: Format,
    wanted: &Preconditions,
    body: impl Fn(&ShareRow) -> Map<String, Value>,
) -> Result<Response, ApiError> {
    let mut last = StoreError::Stale;
    for _ in 0..TRIES {
        let row = find(state, at, id).await?;
        must_be_live(&row)?;
        let spec = share::spec(&state.store, at.id(), body(&row)).await?;
        let (act, generation) = (state.act(&at.principal), row.generation);
        wanted.hold_for(&Share::of(row.clone()))?;
        if spec == row.spec() && row.standing.status != Status::Error {
            // It is that already: no write, no record, no event. What failed is tried anew.
            return Ok(answer(format, StatusCode::ACCEPTED, row));
        }
        match state.store.replace_share(at.id(), id, generation, &spec, &act).await {
            Err(stale @ StoreError::Stale) => last = stale,
            done => {
                let row = done.map_err(refused(Kind::Share, id))?;
                state.wake.notify_one();
                return Ok(answer(format, StatusCode::ACCEPTED, row));
            }
        }
    }
    Err(refused(Kind::Share, id)(last))
}

fn must_be_live(row: &ShareRow) -> Result<(), ApiError> {
    match row.standing.status {
        status @ (Status::Deleting | Status::Deleted) => {
            Err(refused(Kind::Share, row.id)(StoreError::NotLive(status)))
        }
        _ => Ok(()),
    }
}

pub(super) async fn find(state: &AppState, at: &InFrontdoor, id: ShareId) -> Result<ShareRow, ApiError> {
    let row = state.store.share(at.id(), id).await?;
    row.filter(|s| !is_forgotten(s.deleted_at)).ok_or_else(|| ApiError::not_found(Kind::Share, id))
}

fn answer(format: Format, status: StatusCode, row: ShareRow) -> Response {
    let share = Share::of(row);
    let links = share.links();
    format.one(status, &share, links)
}
