//! An API account in JSON.

use super::{
    answer::Links,
    fields::{Fields, Properties},
    frontdoor::Organization,
};
use crate::{auth::Scope, error::ApiError};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use std::{collections::BTreeSet, str::FromStr};
use wicketgate_model::{ApiAccountId, FrontdoorId, Invalid};
use wicketgate_store::ApiAccountRow;

const MOST_FRONTDOORS: usize = 100;
const LONGEST_NAME: usize = 63;

pub(in crate::api) const PROPERTIES: Properties = Properties {
    writable: &["name", "scopes", "frontdoorIds", "expiresAt", "organizationId"],
    read_only: &["clientId", "createdAt", "createdBy", "_links"],
};

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

/// With its secret, shown this once.
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

    pub(in crate::api) fn links(&self) -> Links {
        vec![("self", Self::path(self.client_id))]
    }
}

/// What a body asks for.
#[derive(Debug)]
pub(in crate::api) struct Asked {
    pub(in crate::api) name: String,
    pub(in crate::api) scopes: Vec<Scope>,
    pub(in crate::api) frontdoors: Option<Vec<FrontdoorId>>,
    pub(in crate::api) expires_at: Option<Timestamp>,
    pub(in crate::api) organization: Option<String>,
}

pub(in crate::api) fn asked(body: Map<String, Value>, now: Timestamp) -> Result<Asked, ApiError> {
    let has_scopes = body.get("scopes").is_some_and(|v| !v.is_null());
    let mut fields = Fields::new(body, &PROPERTIES);
    let name = fields.required::<Name>("name").map(|n| n.0);
    let scopes = fields.optional_list::<Scope, Scopes>("scopes").map(|s| s.0);
    if !has_scopes {
        fields.fault("scopes", "is required");
    }
    let frontdoors = fields.optional_list::<FrontdoorId, Frontdoors>("frontdoorIds").map(|f| f.0);
    let expires_at = fields.optional::<Time>("expiresAt").map(|t| t.0);
    if expires_at.is_some_and(|end| end <= now) {
        fields.fault("expiresAt", "must be in the future");
    }
    let organization = fields.optional::<Organization>("organizationId").map(|o| o.0);
    let made = || Some(Asked { name: name?, scopes: scopes?, frontdoors, expires_at, organization });
    let made = made();
    fields.finish(made)
}

struct Name(String);

impl FromStr for Name {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        if (1..=LONGEST_NAME).contains(&s.chars().count()) && !s.chars().any(char::is_control) {
            Ok(Self(s.to_owned()))
        } else {
            Err(Invalid(format!("must be 1 to {LONGEST_NAME} printable characters")))
        }
    }
}

struct Time(Timestamp);

impl FromStr for Time {
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

    /// None at all could be taken for "of no Frontdoor", and for "of all".
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
