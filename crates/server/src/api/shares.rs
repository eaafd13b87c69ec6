//! `/{frontdoorId}/ipsec-shares`

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
        share::{self, Share, ShareRequest},
    },
};
use crate::{
    auth::Scope,
    error::{ApiError, ResourceKind},
    state::AppState,
};
use axum::{
    extract::State,
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};
use wicketgate_model::{ShareId, Status};
use wicketgate_store::{ShareRow, ShareSpec, StoreError};

pub(super) async fn list(
    State(state): State<AppState>,
    at: InFrontdoor,
    format: Format,
    query: Query,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Read)?;
    let query = query.list(share::PROPERTIES)?;
    let page = state.store.shares(at.id(), &query.request).await?;
    let rows = page.rows.into_iter().map(Share::of);
    Ok(format.page(&at.path("ipsec-shares"), &query, page.total, rows))
}

pub(super) async fn get(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Read)?;
    let row = find(&state, &at, id.parse(ResourceKind::Share)?).await?;
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
    // It is stale if its tunnel has changed since its sources were checked.
    let made = retry_stale(|| async {
        let spec = spec(&state, &at, body.clone()).await?;
        Ok(state.store.create_share(at.id(), &spec, &state.write_context(&at.principal)).await)
    });
    let row = made.await?.map_err(not_created(ResourceKind::Share))?;
    state.wake.notify_one();
    let location = Share::path(at.id(), row.id);
    Ok(([(LOCATION, location)], answer(format, StatusCode::ACCEPTED, row)).into_response())
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
    let row = find(&state, &at, id.parse(ResourceKind::Share)?).await?;
    let body = body.object()?;
    let row = change(&state, &at, row, &wanted, |_| body.clone()).await?;
    Ok(answer(format, StatusCode::ACCEPTED, row))
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
    let row = find(&state, &at, id.parse(ResourceKind::Share)?).await?;
    let patch = body.object()?;
    let row = change(&state, &at, row, &wanted, |row| share::merged(row, patch.clone())).await?;
    Ok(answer(format, StatusCode::ACCEPTED, row))
}

pub(super) async fn delete(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    format: Format,
    wanted: Preconditions,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Write)?;
    let id: ShareId = id.parse(ResourceKind::Share)?;
    let done = retry_stale(|| async {
        let row = find(&state, &at, id).await?;
        must_be_live(&row)?;
        let context = state.write_context(&at.principal).expecting(row.updated_at);
        wanted.hold_for(&Share::of(row))?;
        Ok(state.store.delete_share(at.id(), id, &context).await)
    });
    let row = done.await?.map_err(refused(ResourceKind::Share, id))?;
    state.wake.notify_one();
    Ok(answer(format, StatusCode::ACCEPTED, row))
}

/// The share that a body describes, with the tunnel and the environment that it names.
async fn spec(state: &AppState, at: &InFrontdoor, body: Map<String, Value>) -> Result<ShareSpec, ApiError> {
    let request = ShareRequest::parse(body);
    let tunnel = match request.tunnel {
        Some(id) => state.store.tunnel(at.id(), id).await?,
        None => None,
    };
    let environment = match &request.z_id {
        Some(z_id) => state.store.environment_by_z_id(at.id(), z_id).await?,
        None => None,
    };
    request.resolve(tunnel.as_ref(), environment.map(|e| e.id))
}

/// Replaces the share `read` by what `body` makes of it, and of later states of it while others are faster.
async fn change(
    state: &AppState,
    at: &InFrontdoor,
    read: ShareRow,
    wanted: &Preconditions,
    body: impl Fn(&ShareRow) -> Map<String, Value>,
) -> Result<ShareRow, ApiError> {
    let (id, body, mut read) = (read.id, &body, Some(read));
    let done = retry_stale(|| {
        let read = read.take();
        async move {
            let row = match read {
                Some(row) => row,
                None => find(state, at, id).await?,
            };
            must_be_live(&row)?;
            let spec = spec(state, at, body(&row)).await?;
            wanted.hold_for(&Share::of(row.clone()))?;
            if spec == row.spec() && row.standing.status != Status::Error {
                // Nothing changes: no write, no record, no event. A share in `ERROR` is retried.
                return Ok(Ok(row));
            }
            let context = state.write_context(&at.principal);
            Ok(state.store.replace_share(at.id(), id, row.generation, &spec, &context).await)
        }
    });
    let row = done.await?.map_err(refused(ResourceKind::Share, id))?;
    state.wake.notify_one();
    Ok(row)
}

fn must_be_live(row: &ShareRow) -> Result<(), ApiError> {
    match row.standing.status {
        status @ (Status::Deleting | Status::Deleted) => {
            Err(refused(ResourceKind::Share, row.id)(StoreError::NotLive(status)))
        }
        _ => Ok(()),
    }
}

pub(super) async fn find(state: &AppState, at: &InFrontdoor, id: ShareId) -> Result<ShareRow, ApiError> {
    let row = state.store.share(at.id(), id).await?;
    row.filter(|s| !is_past_retention(s.deleted_at))
        .ok_or_else(|| ApiError::not_found(ResourceKind::Share, id))
}

fn answer(format: Format, status: StatusCode, row: ShareRow) -> Response {
    let share = Share::of(row);
    format.resource(status, &share)
}
