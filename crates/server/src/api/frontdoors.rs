//! `/frontdoor/v2`

use super::{
    access::{Answer, At, Caller, Reads, Writes},
    conditional::Preconditions,
    retry::retry_stale,
    wire::{
        answer::Format,
        body::Body,
        frontdoor::{self, Frontdoor},
        query::Query,
    },
};
use crate::{
    auth::Scope,
    error::ApiError,
    state::{AppState, now},
};
use axum::{
    http::{StatusCode, header::LOCATION},
    response::IntoResponse,
};
use serde_json::{Map, Value};
use wicketgate_model::{QuotaKind, Quotas};
use wicketgate_store::{FrontdoorRow, FrontdoorSpec, StoreError};

/// What only the operator changes.
const QUOTAS: &str = "quotas";

pub(super) async fn list(caller: Caller, format: Format, query: Query) -> Answer {
    caller.principal.need(Scope::Read)?;
    let query = query.list(frontdoor::PROPERTIES)?;
    let page = caller.state.store.frontdoors(&caller.principal.reach, &query.request).await?;
    let rows = with_quotas(&caller.state, page.rows).await?.into_iter();
    Ok(format.page("/frontdoor/v2", &query, page.total, rows))
}

pub(super) async fn get(Reads(at): Reads, format: Format) -> Answer {
    answer(&at.state, format, StatusCode::OK, at.frontdoor).await
}

pub(super) async fn create(caller: Caller, format: Format, body: Body) -> Answer {
    caller.principal.need(Scope::Write)?;
    let spec = frontdoor::spec(body.object()?, None, &caller.state.quotas)?;
    if spec.ipsec_shares_enabled {
        caller.principal.need(Scope::Admin)?;
    }
    if spec.quotas != Quotas::default() {
        caller.principal.need_operator(QUOTAS)?;
    }
    caller.principal.need_organization(&spec.organization)?;
    let row = caller.state.store.create_frontdoor(&spec, &caller.write_context()).await?;
    let location = Frontdoor::path(row.id);
    let answer = answer(&caller.state, format, StatusCode::CREATED, row).await?;
    Ok(([(LOCATION, location)], answer).into_response())
}

pub(super) async fn patch(Writes(at): Writes, format: Format, wanted: Preconditions, body: Body) -> Answer {
    let body = body.object()?;
    let mut read = Some(at.frontdoor.clone());
    let done = retry_stale(|| {
        let read = read.take();
        let (at, wanted, body) = (&at, &wanted, &body);
        async move {
            let row = match read {
                Some(row) => row,
                None => find(at).await?,
            };
            let spec = permitted(at, &row, body.clone())?;
            wanted.hold_for(&Frontdoor::of(row.clone()))?;
            if spec == row.spec {
                return Ok(Ok(row));
            }
            let context = at.write_context().expecting(row.updated_at);
            Ok(at.state.store.replace_frontdoor(at.id(), &spec, &context).await)
        }
    });
    let row = done.await?.map_err(|e| refused(&at, e))?;
    answer(&at.state, format, StatusCode::OK, row).await
}

/// The Frontdoor that a patch of this row leads to, if the caller may make what it changes.
fn permitted(at: &At, row: &FrontdoorRow, patch: Map<String, Value>) -> Result<FrontdoorSpec, ApiError> {
    let spec = frontdoor::spec(frontdoor::merged(row, patch), Some(row), &at.state.quotas)?;
    if spec.ipsec_shares_enabled != row.spec.ipsec_shares_enabled {
        at.principal.need(Scope::Admin)?;
    }
    if spec.quotas != row.spec.quotas {
        at.principal.need_operator(QUOTAS)?;
    }
    Ok(spec)
}

async fn find(at: &At) -> Result<FrontdoorRow, ApiError> {
    let row = at.state.store.frontdoor(at.id()).await?;
    row.ok_or_else(|| ApiError::frontdoor_not_found(at.id()))
}

pub(super) async fn delete(Writes(at): Writes, wanted: Preconditions) -> Result<StatusCode, ApiError> {
    let context = at.write_context();
    wanted.hold_for(&Frontdoor::of(at.frontdoor.clone()))?;
    let context = if wanted.are_given() { context.expecting(at.frontdoor.updated_at) } else { context };
    let done = at.state.store.delete_frontdoor(at.id(), &context).await;
    done.map_err(|e| refused(&at, e))?;
    Ok(StatusCode::NO_CONTENT)
}

fn refused(at: &At, e: StoreError) -> ApiError {
    match e {
        StoreError::Missing => ApiError::frontdoor_not_found(at.id()),
        StoreError::InUse { with } => {
            ApiError::conflict(format!("Frontdoor {} can't be deleted: {with} is in it", at.id()))
        }
        other => other.into(),
    }
}

async fn answer(state: &AppState, format: Format, status: StatusCode, row: FrontdoorRow) -> Answer {
    let shown = with_quotas(state, vec![row]).await?.pop().ok_or(StoreError::Missing)?;
    Ok(format.resource(status, &shown))
}

/// With what each has of its quotas.
async fn with_quotas(state: &AppState, rows: Vec<FrontdoorRow>) -> Result<Vec<Frontdoor>, ApiError> {
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let mut used = state.store.quota_use(&ids, now()).await?;
    let shown = |row: FrontdoorRow| {
        let mut used = used.remove(&row.id).unwrap_or_default();
        used.insert(QuotaKind::EventStreams, state.feed.followers(row.id));
        Frontdoor::with_quotas(row, &state.quotas, &used)
    };
    Ok(rows.into_iter().map(shown).collect())
}
