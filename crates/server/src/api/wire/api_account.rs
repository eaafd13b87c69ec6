//! An API account in JSON.

use super::{
    answer::{Links, Representation},
    fields::Fields,
    frontdoor::organization_name,
    property::{
        LINKS, Property,
        PropertyType::{Enum, Id, List, Text, Time},
    },
};
use crate::{auth::Scope, error::ApiError};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use wicketgate_model::{ApiAccountId, FrontdoorId, Invalid};
use wicketgate_store::{ApiAccountRow, column::api_account as column};

pub(in crate::api) const MOST_FRONTDOORS: usize = 100;
pub(in crate::api) const LONGEST_NAME: usize = 63;

pub(in crate::api) static PROPERTIES: &[Property] = &[
    Property::new("clientId", Id("acc-")).column(&column::ID),
    Property::new("name", Text).column(&column::NAME).required().described_as("accountName"),
    Property::new("organizationId", Text).column(&column::ORGANIZATION).writable(),
    Property::new("scopes", List(&Enum(Scope::NAMES))).column(&column::SCOPES).required(),
    Property::new("frontdoorIds", List(&Id(""))).column(&column::FRONTDOORS).writable(),
    Property::new("expiresAt", Time).column(&column::EXPIRES_AT).writable(),
    Property::new("createdAt", Time).column(&column::CREATED_AT),
    Property::new("createdBy", Text).column(&column::CREATED_BY),
    LINKS,
];

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct ApiAccount {
    client_id: ApiAccountId,
    name: String,
    organization_id: String,
    scopes: Vec<String>,
    frontdoor_ids: Option<Vec<FrontdoorId>>,
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
    created_by: String,
}

/// With its secret, which is returned only once.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct NewAccount<'a> {
    pub(in crate::api) client_secret: &'a str,
    #[serde(flatten)]
    pub(in crate::api) account: &'a ApiAccount,
}

impl ApiAccount {
    pub(in crate::api) fn of(row: ApiAccountRow) -> Self {
        Self {
            client_id: row.id,
            name: row.spec.name,
            organization_id: row.spec.organization,
            scopes: row.spec.scopes,
            frontdoor_ids: row.spec.frontdoors,
            expires_at: row.spec.expires_at,
            created_at: row.created_at,
            created_by: row.created_by,
        }
    }

    pub(in crate::api) fn path(id: ApiAccountId) -> String {
        format!("/frontdoor/v2/api-accounts/{id}")
    }
}

impl Representation for ApiAccount {
    const LIST: &'static str = "apiAccountList";

    fn links(&self) -> Links {
        vec![("self", Self::path(self.client_id))]
    }
}

/// An account as a body describes it.
#[derive(Debug)]
pub(in crate::api) struct AccountRequest {
    pub(in crate::api) name: String,
    pub(in crate::api) scopes: Vec<Scope>,
    pub(in crate::api) frontdoors: Option<Vec<FrontdoorId>>,
    pub(in crate::api) expires_at: Option<Timestamp>,
    pub(in crate::api) organization: Option<String>,
}

pub(in crate::api) fn account_request(
    body: Map<String, Value>,
    now: Timestamp,
) -> Result<AccountRequest, ApiError> {
    let mut fields = Fields::new(body, PROPERTIES);
    let name = fields.parsed("name", account_name);
    let scopes = fields.list("scopes", some_scopes);
    let frontdoors = fields.list("frontdoorIds", some_frontdoors);
    let expires_at = fields.time("expiresAt");
    if expires_at.is_some_and(|end| end <= now) {
        fields.fault("expiresAt", "must be in the future");
    }
    let organization = fields.parsed("organizationId", organization_name);
    fields.finish(|| {
        Some(AccountRequest { name: name?, scopes: scopes?, frontdoors, expires_at, organization })
    })
}

fn account_name(text: &str) -> Result<String, Invalid> {
    if (1..=LONGEST_NAME).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err(Invalid(format!("must be 1 to {LONGEST_NAME} printable characters")))
    }
}

/// Each once, in the order of [`Scope::ALL`].
fn some_scopes(mut scopes: Vec<Scope>) -> Result<Vec<Scope>, Invalid> {
    scopes.sort_unstable();
    scopes.dedup();
    if scopes.is_empty() { Err(Invalid("must have one scope at least".to_owned())) } else { Ok(scopes) }
}

/// Each once. An empty list could mean no Frontdoor or all of them.
fn some_frontdoors(frontdoors: Vec<FrontdoorId>) -> Result<Vec<FrontdoorId>, Invalid> {
    let frontdoors: BTreeSet<_> = frontdoors.into_iter().collect();
    if (1..=MOST_FRONTDOORS).contains(&frontdoors.len()) {
        Ok(frontdoors.into_iter().collect())
    } else {
        Err(Invalid(format!(
            "must name 1 to {MOST_FRONTDOORS} Frontdoors, or be left out for all of the organization"
        )))
    }
}
