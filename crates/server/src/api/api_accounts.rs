//! `/frontdoor/v2/api-accounts`: credentials for programs. They belong to an organization; its admins manage them.

use super::{
    access::{Administers, Answer, Caller, Id},
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
    auth::client_secret::ClientSecret,
    error::{ApiError, PropertyFault, ResourceKind},
    state::{AppState, now},
};
use axum::{
    http::{
        StatusCode,
        header::{CACHE_CONTROL, LOCATION},
    },
    response::IntoResponse,
};
use jiff::Timestamp;
use wicketgate_model::ApiAccountId;
use wicketgate_store::{ApiAccountRow, ApiAccountSpec, AuthenticationSubject, Reach};

pub(super) async fn list(at: Administers, format: Format, query: Query) -> Answer {
    let query = query.list(api_account::PROPERTIES)?;
    let page = at.caller.state.store.api_accounts(at.organization.as_deref(), &query.request).await?;
    let rows = page.rows.into_iter().map(ApiAccount::of);
    Ok(format.page("/frontdoor/v2/api-accounts", &query, page.total, rows))
}

/// The secret is only in this answer: the server stores its hash.
pub(super) async fn create(at: Administers, format: Format, body: Body) -> Answer {
    let caller = at.caller;
    let requested = account_request(body.object()?, now())?;
    let organization = organization(&caller, &requested).await?;
    let expires_at = within_the_creator(&caller, &requested).await?;
    let secret = ClientSecret::generate()?;
    let new = ApiAccountSpec {
        organization,
        name: requested.name,
        scopes: requested.scopes.iter().map(|s| s.as_str().to_owned()).collect(),
        frontdoors: requested.frontdoors,
        secret_sha256: secret.sha256(),
        expires_at,
    };
    let row = caller.state.store.create_api_account(&new, &caller.write_context()).await?;
    let location = ApiAccount::path(row.id);
    let account = ApiAccount::of(row);
    let shown = NewAccount { client_secret: secret.expose(), account: &account };
    let answer = format.one(StatusCode::CREATED, &shown, account.links());
    Ok(([(CACHE_CONTROL, "no-store".to_owned()), (LOCATION, location)], answer).into_response())
}

pub(super) async fn get(at: Administers, Id(id): Id<ApiAccountId>, format: Format) -> Answer {
    let account = ApiAccount::of(find(&at, id).await?);
    Ok(format.resource(StatusCode::OK, &account))
}

/// From the next request on, the account's secret and tokens are refused.
pub(super) async fn delete(
    at: Administers,
    Id(id): Id<ApiAccountId>,
    wanted: Preconditions,
) -> Result<StatusCode, ApiError> {
    let account = find(&at, id).await?;
    wanted.hold_for(&ApiAccount::of(account.clone()))?;
    let caller = at.caller;
    // The record of the account ends with what was tried before, and not with what follows in an hour.
    let subject = AuthenticationSubject::Account(account.id);
    caller.state.failures.record_now(Some(subject), &caller.state.store).await;
    let done = caller.state.store.revoke_api_account(account.id, &caller.write_context()).await;
    done.map_err(refused(ResourceKind::ApiAccount, account.named()))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(at: &Administers, id: ApiAccountId) -> Result<ApiAccountRow, ApiError> {
    let row = at.caller.state.store.api_account(id).await?;
    row.filter(|a| at.organization.as_ref().is_none_or(|own| *own == a.spec.organization))
        .ok_or_else(|| ApiError::not_found(ResourceKind::ApiAccount, id))
}

/// The new account may no more than its creator, and ends with it at the latest. Returns when it ends.
async fn within_the_creator(
    Caller { state, principal, .. }: &Caller,
    requested: &AccountRequest,
) -> Result<Option<Timestamp>, ApiError> {
    for scope in &requested.scopes {
        principal.need(*scope)?;
    }
    let creator = match principal.actor.parse() {
        Ok(id) => state.store.api_account(id).await?,
        Err(_) => None,
    };
    let latest = creator.and_then(|creator| creator.spec.expires_at);
    match (requested.expires_at, latest) {
        (Some(asked), Some(latest)) if asked > latest => Err(fault(
            "expiresAt",
            &format!("must not be after {latest}, when the account that creates it ends"),
        )),
        (asked, latest) => Ok(asked.or(latest)),
    }
}

fn fault(property: &str, rule: &str) -> ApiError {
    ApiError::faults(vec![PropertyFault {
        property: property.to_owned(),
        message: format!("{property} {rule}"),
    }])
}

/// The organization of the new account: that of the request, or the caller's, or that of the named Frontdoors, or the
/// only one there is. All named Frontdoors must belong to it.
async fn organization(caller: &Caller, requested: &AccountRequest) -> Result<String, ApiError> {
    if let Some(organization) = &requested.organization {
        caller.principal.need_organization(organization)?;
    }
    let mut found = match (&requested.organization, &caller.principal.reach) {
        (Some(requested), _) => Some(requested.clone()),
        (None, Reach::Organization(own)) => Some(own.clone()),
        (None, _) => None,
    };
    for id in requested.frontdoors.iter().flatten() {
        let frontdoor = caller.state.store.frontdoor(*id).await?.filter(|f| caller.principal.sees(f));
        let own = frontdoor.map(|f| f.spec.organization);
        let own = own.filter(|own| found.as_ref().is_none_or(|found| found == own));
        found = Some(own.ok_or_else(|| fault("frontdoorIds", "must name Frontdoors of one organization"))?);
    }
    match found {
        Some(found) => Ok(found),
        None => only_organization(&caller.state)
            .await?
            .ok_or_else(|| fault("organizationId", "is required: there is more than one organization")),
    }
}

/// The organization of all Frontdoors, if there is exactly one.
async fn only_organization(state: &AppState) -> Result<Option<String>, ApiError> {
    let mut all = state.store.organizations(2).await?;
    Ok(all.pop().filter(|_| all.is_empty()))
}
