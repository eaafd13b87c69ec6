//! `/frontdoor/v2/api-accounts`: programs' own credentials. They belong to an organization, and are its admin's.

use super::{
    access::{Caller, PathId},
    conditional::Preconditions,
    refusal::refused,
    wire::{
        answer::Format,
        answer::Representation as _,
        api_account::{self, AccountRequest, ApiAccount, NewAccount, account_request},
        body::Body,
        query::Query,
    },
};
use crate::{
    auth::{Principal, client_secret::ClientSecret},
    error::{ApiError, PropertyFault, ResourceKind},
    state::{AppState, now},
};
use axum::{
    extract::State,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, LOCATION},
    },
    response::{IntoResponse, Response},
};
use wicketgate_model::ApiAccountId;
use wicketgate_store::{ApiAccountRow, NewApiAccount, Reach};

pub(super) async fn list(
    State(state): State<AppState>,
    Caller(caller): Caller,
    format: Format,
    query: Query,
) -> Result<Response, ApiError> {
    let organization = caller.administered()?;
    let query = query.list(api_account::PROPERTIES)?;
    let page = state.store.api_accounts(organization, &query.request).await?;
    let rows = page.rows.into_iter().map(ApiAccount::of);
    Ok(format.page("/frontdoor/v2/api-accounts", &query, page.total, rows))
}

/// The secret is in this one answer only: the server keeps its hash.
pub(super) async fn create(
    State(state): State<AppState>,
    Caller(caller): Caller,
    format: Format,
    body: Body,
) -> Result<Response, ApiError> {
    caller.administered()?;
    let asked = account_request(body.object()?, now())?;
    let organization = organization(&state, &caller, &asked).await?;
    let secret = ClientSecret::generate()
        .map_err(|_| ApiError::unavailable("The server could not generate random bytes; try again"))?;
    let new = NewApiAccount {
        organization,
        name: asked.name,
        scopes: asked.scopes.iter().map(|s| s.as_str().to_owned()).collect(),
        frontdoors: asked.frontdoors,
        secret_sha256: secret.sha256(),
        expires_at: asked.expires_at,
    };
    let row = state.store.create_api_account(&new, &state.write_context(&caller)).await?;
    let location = ApiAccount::path(row.id);
    let account = ApiAccount::of(row);
    let shown = NewAccount { client_secret: secret.expose(), account: &account };
    let answer = format.one(StatusCode::CREATED, &shown, account.links());
    Ok(([(CACHE_CONTROL, "no-store".to_owned()), (LOCATION, location)], answer).into_response())
}

pub(super) async fn get(
    State(state): State<AppState>,
    Caller(caller): Caller,
    id: PathId,
    format: Format,
) -> Result<Response, ApiError> {
    let account = ApiAccount::of(find(&state, &caller, &id).await?);
    Ok(format.resource(StatusCode::OK, &account))
}

/// From the next request on, its secret and its tokens open nothing.
pub(super) async fn delete(
    State(state): State<AppState>,
    Caller(caller): Caller,
    id: PathId,
    wanted: Preconditions,
) -> Result<StatusCode, ApiError> {
    let account = find(&state, &caller, &id).await?;
    wanted.hold_for(&ApiAccount::of(account.clone()))?;
    let done = state.store.revoke_api_account(account.id, &state.write_context(&caller)).await;
    done.map_err(refused(ResourceKind::ApiAccount, account.id))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(state: &AppState, caller: &Principal, id: &PathId) -> Result<ApiAccountRow, ApiError> {
    let organization = caller.administered()?;
    let id: ApiAccountId = id.parse(ResourceKind::ApiAccount)?;
    let row = state.store.api_account(id).await?;
    row.filter(|a| organization.is_none_or(|own| own == a.organization))
        .ok_or_else(|| ApiError::not_found(ResourceKind::ApiAccount, id))
}

/// Whose the account is to be: as asked for, or the caller's, or that of the Frontdoors that are named, or the only
/// one there is. The Frontdoors have to be of it.
async fn organization(
    state: &AppState,
    caller: &Principal,
    asked: &AccountRequest,
) -> Result<String, ApiError> {
    let fault = |property: &str, rule: &str| {
        ApiError::faults(vec![PropertyFault {
            property: property.to_owned(),
            message: format!("{property} {rule}"),
        }])
    };
    if let Some(organization) = &asked.organization {
        caller.need_organization(organization)?;
    }
    let mut found = match (&asked.organization, &caller.reach) {
        (Some(asked), _) => Some(asked.clone()),
        (None, Reach::Organization(own)) => Some(own.clone()),
        (None, _) => None,
    };
    for id in asked.frontdoors.iter().flatten() {
        let frontdoor = state.store.frontdoor(*id).await?.filter(|f| caller.sees(f));
        let own = frontdoor.map(|f| f.organization);
        let own = own.filter(|own| found.as_ref().is_none_or(|found| found == own));
        found = Some(own.ok_or_else(|| fault("frontdoorIds", "must name Frontdoors of one organization"))?);
    }
    match found {
        Some(found) => Ok(found),
        None => only_organization(state)
            .await?
            .ok_or_else(|| fault("organizationId", "is required: there is more than one organization")),
    }
}

/// The organization of all Frontdoors, if it is one.
async fn only_organization(state: &AppState) -> Result<Option<String>, ApiError> {
    let mut all = state.store.organizations(2).await?;
    Ok(all.pop().filter(|_| all.is_empty()))
}
