//! API accounts as callers.

use super::{Principal, Refused, Scope, client_secret};
use crate::error::ApiError;
use jiff::Timestamp;
use subtle::ConstantTimeEq;
use wicketgate_store::{ApiAccountRow, Store};

/// The account with this secret. It may have expired.
pub(super) async fn of(store: &Store, secret: &str) -> Result<Option<ApiAccountRow>, ApiError> {
    let shown = client_secret::sha256(secret);
    let account = store.api_account_with_secret(&shown).await?;
    Ok(account.filter(|a| a.spec.secret_sha256.ct_eq(&shown).into()))
}

/// The account with the scopes that both it and its token have: the account's may have been reduced since.
pub(super) fn principal(account: &ApiAccountRow, granted: Option<&[Scope]>) -> Result<Principal, Refused> {
    if let Some(end) = expired_at(account) {
        return Err(Refused::AccountExpired(account.id, end));
    }
    let mut scopes = scopes(account);
    scopes.retain(|scope| granted.is_none_or(|granted| granted.contains(scope)));
    let organization = Some(account.spec.organization.clone());
    Ok(Principal { actor: account.id.to_string(), reach: account.reach(), organization, scopes, claim: None })
}

pub(crate) fn scopes(account: &ApiAccountRow) -> Vec<Scope> {
    Scope::among(account.spec.scopes.iter().map(String::as_str))
}

/// When the account ended, if it has.
pub(crate) fn expired_at(account: &ApiAccountRow) -> Option<Timestamp> {
    account.spec.expires_at.filter(|end| *end <= Timestamp::now())
}
