//! A Frontdoor in JSON.

use super::{
    answer::Links,
    fields::{Fields, Properties, merge},
};
use crate::error::ApiError;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::str::FromStr;
use wicketgate_model::{FrontdoorId, Invalid, NamespaceName};
use wicketgate_store::{FrontdoorRow, FrontdoorSpec};

pub(in crate::api) const PROPERTIES: Properties = Properties {
    writable: &["organizationId", "defaultNamespaceName", "ipsecSharesEnabled"],
    read_only: &["id", "createdAt", "updatedAt", "createdBy", "_links"],
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Frontdoor {
    id: FrontdoorId,
    organization_id: String,
    default_namespace_name: NamespaceName,
    ipsec_shares_enabled: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
    created_by: String,
}

impl Frontdoor {
    pub(in crate::api) fn of(row: FrontdoorRow) -> Self {
        Self {
            id: row.id,
            organization_id: row.organization,
            default_namespace_name: row.default_namespace,
            ipsec_shares_enabled: row.ipsec_shares_enabled,
            created_at: row.created_at,
            updated_at: row.updated_at,
            created_by: row.created_by,
        }
    }

    pub(in crate::api) fn path(id: FrontdoorId) -> String {
        format!("/frontdoor/v2/{id}")
    }

    pub(in crate::api) fn links(&self) -> Links {
        let own = Self::path(self.id);
        vec![
            ("ipsecShares", format!("{own}/ipsec-shares")),
            ("ipsecTunnels", format!("{own}/ipsec-tunnels")),
            ("environments", format!("{own}/environments")),
            ("self", own),
        ]
    }
}

/// What a body asks for; `old` is the Frontdoor that it is to replace.
pub(in crate::api) fn spec(
    body: Map<String, Value>,
    old: Option<&FrontdoorRow>,
) -> Result<FrontdoorSpec, ApiError> {
    let mut fields = Fields::new(body, &PROPERTIES);
    let organization = fields.required::<Organization>("organizationId").map(|o| o.0);
    let default_namespace = fields.required::<NamespaceName>("defaultNamespaceName");
    let ipsec_shares_enabled = fields.optional_boolean("ipsecSharesEnabled").unwrap_or(false);
    if let (Some(organization), Some(old)) = (&organization, old)
        && *organization != old.organization
    {
        fields.fault("organizationId", "can't be changed");
    }
    let made = || {
        Some(FrontdoorSpec {
            organization: organization?,
            default_namespace: default_namespace?,
            ipsec_shares_enabled,
        })
    };
    let made = made();
    fields.finish(made)
}

/// What a body of PATCH makes of the Frontdoor as it is.
pub(in crate::api) fn patched(row: &FrontdoorRow, patch: Map<String, Value>) -> Map<String, Value> {
    let mut whole = Map::new();
    whole.insert("organizationId".to_owned(), json!(row.organization));
    whole.insert("defaultNamespaceName".to_owned(), json!(row.default_namespace));
    whole.insert("ipsecSharesEnabled".to_owned(), json!(row.ipsec_shares_enabled));
    merge(&mut whole, patch);
    whole
}

/// Whatever an organization is called where it comes from.
#[derive(Debug)]
pub(super) struct Organization(pub(super) String);

impl FromStr for Organization {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        if (1..=128).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(s.to_owned()))
        } else {
            Err(Invalid("must be 1 to 128 printable ASCII characters without spaces".to_owned()))
        }
    }
}
