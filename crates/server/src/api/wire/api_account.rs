//! An API account in JSON.

use super::{
    answer::{Links, Representation},
    fields::Fields,
    frontdoor::Organization,
    property::{
        LINKS, Property,
        PropertyType::{Id, List, Text, Time},
    },
};
use crate::{auth::Scope, error::ApiError};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use std::{collections::BTreeSet, str::FromStr};
use wicketgate_model::{ApiAccountId, FrontdoorId, Invalid};
use wicketgate_store::{ApiAccountRow, column::api_account as column};

pub(in crate::api) const MOST_FRONTDOORS: usize = 100;
pub(in crate::api) const LONGEST_NAME: usize = 63;

pub(in crate::api) static PROPERTIES: &[Property] = &[
    Property::new("clientId", Id("acc-")).column(&column::ID),
    Property::new("name", Text).column(&column::NAME).required().described_as("accountName"),
    Property::new("organizationId", Text).column(&column::ORGANIZATION).writable(),
    Property::new("scopes", List).column(&column::SCOPES).required(),
    Property::new("frontdoorIds", List).column(&column::FRONTDOORS).writable(),
    Property::new("expiresAt", Time).column(&column::EXPIRES_AT).writable(),
    Property::new("createdAt", Time).column(&column::CREATED_AT),
    Property::new("createdBy", Text).column(&column::CREATED_BY),
    LINKS,
];

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct ApiAccount {
    client_id: ApiAccountId,
    name: String,
    organization_id: String,
    scopes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frontdoor_ids: Option<Vec<FrontdoorId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
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
            name: row.name,
            organization_id: row.organization,
            scopes: row.scopes,
            frontdoor_ids: row.frontdoors,
            expires_at: row.expires_at,
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
    let name = fields.text::<Name>("name").map(|n| n.0);
    let scopes = fields.list::<Scope, Scopes>("scopes").map(|s| s.0);
    let frontdoors = fields.list::<FrontdoorId, Frontdoors>("frontdoorIds").map(|f| f.0);
    let expires_at = fields.text::<Expiry>("expiresAt").map(|t| t.0);
    if expires_at.is_some_and(|end| end <= now) {
        fields.fault("expiresAt", "must be in the future");
    }
    let organization = fields.text::<Organization>("organizationId").map(|o| o.0);
    fields.finish(|| {
        Some(AccountRequest { name: name?, scopes: scopes?, frontdoors, expires_at, organization })
    })
}

struct Name(String);

impl FromStr for Name {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        if !s.is_empty() && s.chars().count() <= LONGEST_NAME && !s.chars().any(char::is_control) {
            Ok(Self(s.to_owned()))
        } else {
            Err(Invalid(format!("must be 1 to {LONGEST_NAME} printable characters")))
        }
    }
}

struct Expiry(Timestamp);

impl FromStr for Expiry {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        s.parse().map(Self).map_err(|_| Invalid("must be a time like 2030-12-31T23:59:59Z".to_owned()))
    }
}

struct Scopes(Vec<Scope>);

impl TryFrom<Vec<Scope>> for Scopes {
    type Error = Invalid;

    fn try_from(mut scopes: Vec<Scope>) -> Result<Self, Invalid> {
        scopes.sort_by_key(|s| Scope::ALL.iter().position(|other| other == s));
        scopes.dedup();
        if scopes.is_empty() {
            Err(Invalid("must have one scope at least".to_owned()))
        } else {
            Ok(Self(scopes))
        }
    }
}

struct Frontdoors(Vec<FrontdoorId>);

impl TryFrom<Vec<FrontdoorId>> for Frontdoors {
    type Error = Invalid;

    /// An empty list could mean no Frontdoor or all of them.
    fn try_from(frontdoors: Vec<FrontdoorId>) -> Result<Self, Invalid> {
        let frontdoors: BTreeSet<_> = frontdoors.into_iter().collect();
        if (1..=MOST_FRONTDOORS).contains(&frontdoors.len()) {
            Ok(Self(frontdoors.into_iter().collect()))
        } else {
            Err(Invalid(format!(
                "must name 1 to {MOST_FRONTDOORS} Frontdoors, or be left out for all of the organization"
            )))
        }
    }
}
