//! A Frontdoor in JSON.

use super::{
    answer::{Links, Representation},
    fields::{Fields, patched},
    property::{
        LINKS, Property,
        PropertyType::{Boolean, Id, Text, Time},
    },
};
use crate::error::ApiError;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use wicketgate_model::{FrontdoorId, Invalid, NamespaceName};
use wicketgate_store::{FrontdoorRow, FrontdoorSpec, column::frontdoor as column};

pub(in crate::api) static PROPERTIES: &[Property] = &[
    Property::new("id", Id("")).column(&column::ID),
    Property::new("organizationId", Text).column(&column::ORGANIZATION).required(),
    Property::new("defaultNamespaceName", Text).column(&column::DEFAULT_NAMESPACE).required(),
    Property::new("ipsecSharesEnabled", Boolean).column(&column::IPSEC_SHARES_ENABLED).writable(),
    Property::new("createdAt", Time).column(&column::CREATED_AT),
    Property::new("updatedAt", Time).column(&column::UPDATED_AT),
    Property::new("createdBy", Text).column(&column::CREATED_BY),
    LINKS,
];

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
            organization_id: row.spec.organization,
            default_namespace_name: row.spec.default_namespace,
            ipsec_shares_enabled: row.spec.ipsec_shares_enabled,
            created_at: row.created_at,
            updated_at: row.updated_at,
            created_by: row.created_by,
        }
    }

    pub(in crate::api) fn path(id: FrontdoorId) -> String {
        format!("/frontdoor/v2/{id}")
    }
}

impl Representation for Frontdoor {
    const LIST: &'static str = "frontdoorList";

    fn links(&self) -> Links {
        let own = Self::path(self.id);
        vec![
            ("ipsecShares", format!("{own}/ipsec-shares")),
            ("ipsecTunnels", format!("{own}/ipsec-tunnels")),
            ("environments", format!("{own}/environments")),
            ("self", own),
        ]
    }
}

/// The Frontdoor that a body describes; `old` is the one to be replaced.
pub(in crate::api) fn spec(
    body: Map<String, Value>,
    old: Option<&FrontdoorRow>,
) -> Result<FrontdoorSpec, ApiError> {
    let mut fields = Fields::new(body, PROPERTIES);
    let organization = fields.parsed("organizationId", organization_name);
    let default_namespace = fields.text::<NamespaceName>("defaultNamespaceName");
    let ipsec_shares_enabled = fields.boolean("ipsecSharesEnabled").unwrap_or(false);
    if let (Some(organization), Some(old)) = (&organization, old)
        && *organization != old.spec.organization
    {
        fields.fault("organizationId", "can't be changed");
    }
    fields.finish(|| {
        Some(FrontdoorSpec {
            organization: organization?,
            default_namespace: default_namespace?,
            ipsec_shares_enabled,
        })
    })
}

/// The body of PUT that a merge patch of the Frontdoor stands for.
pub(in crate::api) fn merged(row: &FrontdoorRow, patch: Map<String, Value>) -> Map<String, Value> {
    patched(&Frontdoor::of(row.clone()), PROPERTIES, patch)
}

/// The name of an organization, chosen by the operator or its identity provider.
pub(super) fn organization_name(text: &str) -> Result<String, Invalid> {
    if (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(Invalid("must be 1 to 128 printable ASCII characters without spaces".to_owned()))
    }
}
