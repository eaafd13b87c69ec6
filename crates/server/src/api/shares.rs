//! `/{frontdoorId}/ipsec-shares`

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
        share::{self, Share, ShareRequest},
    },
};
use crate::{
    error::{ApiError, ResourceKind},
    state::AppState,
};
use axum::{
    http::{StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value};
use wicketgate_model::{ShareId, Status};
use wicketgate_store::{KnownFalse, ShareRow, ShareSpec, column::share as column};

pub(super) async fn list(ReadsShares(at): ReadsShares, format: Format, query: Query) -> Answer {
    let mut query = query.list(share::PROPERTIES)?;
    if query.request.filters.iter().any(|filter| filter.column == &column::READY) {
        // As [`shown`] does: `ready` of a row follows later.
        let values = at.state.gateways.lost_peers().iter().map(ToString::to_string).collect();
        query.request.known = Some(KnownFalse { column: &column::READY, of: &column::TUNNEL, values });
    }
    let page = at.state.store.shares(at.id(), &query.request).await?;
    let rows = page.rows.into_iter().map(|row| shown(&at.state, row));
    Ok(format.page(&at.path("ipsec-shares"), &query, page.total, rows))
}

pub(super) async fn get(ReadsShares(at): ReadsShares, Id(id): Id<ShareId>, format: Format) -> Answer {
    let row = find(&at, id).await?;
    Ok(answer(&at.state, format, StatusCode::OK, row))
}

pub(super) async fn create(WritesShares(at): WritesShares, format: Format, body: Body) -> Answer {
    let body = body.object()?;
    // It is stale if its tunnel has changed since its sources were checked.
    let made = retry_stale(|| async {
        let spec = spec(&at, body.clone(), None).await?;
        Ok(at.state.store.create_share(at.id(), &spec, &at.write_context()).await)
    });
    let row = made.await?.map_err(not_created(ResourceKind::Share))?;
    at.state.gateways.wake();
    let location = Share::path(at.id(), row.id);
    Ok(([(LOCATION, location)], answer(&at.state, format, StatusCode::ACCEPTED, row)).into_response())
}

pub(super) async fn put(edit: Edit<ShareId>, body: Body) -> Answer {
    change(edit, body, |_, body| body).await
}

pub(super) async fn patch(edit: Edit<ShareId>, body: Body) -> Answer {
    change(edit, body, share::merged).await
}

pub(super) async fn delete(Edit { at, id, format, wanted }: Edit<ShareId>) -> Answer {
    let named = find(&at, id).await?.named();
    let done = retry_stale(|| async {
        let row = find(&at, id).await?;
        must_be_live(ResourceKind::Share, row.named(), row.standing.status)?;
        let context = at.write_context().expecting(row.updated_at);
        wanted.hold_for(&shown(&at.state, row))?;
        Ok(at.state.store.delete_share(at.id(), id, &context).await)
    });
    let row = done.await?.map_err(refused(ResourceKind::Share, named))?;
    at.state.gateways.wake();
    Ok(answer(&at.state, format, StatusCode::ACCEPTED, row))
}

/// The share that a body describes, with the tunnel and the environment that it names.
async fn spec(at: &At, body: Map<String, Value>, old: Option<&ShareRow>) -> Result<ShareSpec, ApiError> {
    let request = ShareRequest::parse(body, old);
    let tunnel = match request.tunnel {
        Some(id) => at.state.store.tunnel(at.id(), id).await?,
        None => None,
    };
    let environment = match &request.environment {
        Some(key) => at.state.store.environment_of(at.id(), key).await?,
        None => None,
    };
    request.resolve(tunnel.as_ref(), environment.map(|e| e.id))
}

/// Replaces the share by the body that `whole` returns for the current state; repeats it with the newer state if another
/// write was faster.
async fn change(
    Edit { at, id, format, wanted }: Edit<ShareId>,
    body: Body,
    whole: impl Fn(&ShareRow, Map<String, Value>) -> Map<String, Value>,
) -> Answer {
    let read = find(&at, id).await?;
    let (named, mut read) = (read.named(), Some(read));
    let body = body.object()?;
    let done = retry_stale(|| {
        let read = read.take();
        let (at, wanted, body, whole) = (&at, &wanted, &body, &whole);
        async move {
            let row = match read {
                Some(row) => row,
                None => find(at, id).await?,
            };
            must_be_live(ResourceKind::Share, row.named(), row.standing.status)?;
            let spec = spec(at, whole(&row, body.clone()), Some(&row)).await?;
            wanted.hold_for(&shown(&at.state, row.clone()))?;
            if spec == row.spec && row.standing.status != Status::Error {
                // Nothing changes: no write, no record, no event. A share in `ERROR` is retried.
                return Ok(Ok(row));
            }
            let context = at.write_context();
            Ok(at.state.store.replace_share(at.id(), id, row.generation, &spec, &context).await)
        }
    });
    let row = done.await?.map_err(refused(ResourceKind::Share, named))?;
    at.state.gateways.wake();
    Ok(answer(&at.state, format, StatusCode::ACCEPTED, row))
}

pub(super) async fn find(at: &At, id: ShareId) -> Result<ShareRow, ApiError> {
    let row = at.state.store.share(at.id(), id).await?;
    row.filter(|s| !is_past_retention(s.deleted_at))
        .ok_or_else(|| ApiError::not_found(ResourceKind::Share, id))
}

fn answer(state: &AppState, format: Format, status: StatusCode, row: ShareRow) -> Response {
    format.resource(status, &shown(state, row))
}

/// The share as it is now: with what its gateway has just reported and rows say later, or not at all.
pub(super) fn present(state: &AppState, mut row: ShareRow) -> ShareRow {
    if row.standing.serves()
        && let Some(lost) = state.gateways.peer_problem(&row)
    {
        row.standing.detail = Some(lost);
    }
    row
}

pub(super) fn shown(state: &AppState, row: ShareRow) -> Share {
    let row = present(state, row);
    let detail = row.standing.detail.as_ref().filter(|_| row.standing.status == Status::Deployed);
    let counts =
        detail.and_then(|detail| state.gateways.not_served(row.gateway, row.id, detail.problem.reason));
    Share::counted(row, counts)
}
