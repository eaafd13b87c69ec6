//! A Frontdoor in JSON.

use super::{
    answer::{Links, Representation},
    fields::{Fields, patched},
    property::{
        LINKS, Property,
        PropertyType::{Boolean, Id, Integer, Object, Text, Time},
    },
};
use crate::error::ApiError;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;
use wicketgate_model::{FrontdoorId, Invalid, NamespaceName, QuotaKind, QuotaLimit, QuotaSetting, Quotas};
use wicketgate_store::{FrontdoorRow, FrontdoorSpec, QuotaUse, column::frontdoor as column};

pub(in crate::api) static PROPERTIES: &[Property] = &[
    Property::new("id", Id("")).column(&column::ID),
    Property::new("organizationId", Text).column(&column::ORGANIZATION).required(),
    Property::new("defaultNamespaceName", Text).column(&column::DEFAULT_NAMESPACE).required(),
    Property::new("ipsecSharesEnabled", Boolean).column(&column::IPSEC_SHARES_ENABLED).writable(),
    Property::new("quotas", Object),
    Property::new("quotas", Object).write_only().described_as("quotaLimits"),
    Property::new("createdAt", Time).column(&column::CREATED_AT),
    Property::new("updatedAt", Time).column(&column::UPDATED_AT),
    Property::new("createdBy", Text).column(&column::CREATED_BY),
    LINKS,
];

/// The property of `quotas`.
pub(in crate::api) const fn quota_name(kind: QuotaKind) -> &'static str {
    match kind {
        QuotaKind::Tunnels => "tunnels",
        QuotaKind::Shares => "shares",
        QuotaKind::Environments => "environments",
        QuotaKind::Agents => "agents",
        QuotaKind::EnrollmentCodes => "enrollmentCodes",
        QuotaKind::ApiAccounts => "apiAccounts",
        QuotaKind::HandoverLinks => "handoverLinks",
        QuotaKind::EventStreams => "eventStreams",
        QuotaKind::Frontdoors => "frontdoors",
    }
}

/// The parts of `quotas`.
static LIMITS: LazyLock<Vec<Property>> = LazyLock::new(|| {
    QuotaKind::of_frontdoor().map(|kind| Property::new(quota_name(kind), Integer).writable()).collect()
});

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct Frontdoor {
    id: FrontdoorId,
    organization_id: String,
    default_namespace_name: NamespaceName,
    ipsec_shares_enabled: bool,
    /// Not in what only its state is compared of.
    #[serde(skip_serializing_if = "Option::is_none")]
    quotas: Option<Value>,
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
            quotas: None,
            created_at: row.created_at,
            updated_at: row.updated_at,
            created_by: row.created_by,
        }
    }

    /// With its quotas in this installation, and what it has of each kind.
    pub(in crate::api) fn with_quotas(row: FrontdoorRow, installation: &Quotas, used: &QuotaUse) -> Self {
        let quota = |kind: QuotaKind| {
            let limit = row.spec.quotas.within(installation, kind).get();
            let used = used.get(&kind).copied().unwrap_or_default();
            (quota_name(kind).to_owned(), json!({"limit": limit, "used": used}))
        };
        let quotas = QuotaKind::of_frontdoor().map(quota).collect();
        Self { quotas: Some(Value::Object(quotas)), ..Self::of(row) }
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

/// The Frontdoor that a body describes; `old` is the one to be replaced. `installation` has the limits that it need not set.
pub(in crate::api) fn spec(
    body: Map<String, Value>,
    old: Option<&FrontdoorRow>,
    installation: &Quotas,
) -> Result<FrontdoorSpec, ApiError> {
    let mut fields = Fields::new(body, PROPERTIES);
    let organization = fields.parsed("organizationId", organization_name);
    let default_namespace = fields.text::<NamespaceName>("defaultNamespaceName");
    let ipsec_shares_enabled = fields.boolean("ipsecSharesEnabled").unwrap_or(false);
    let before = old.map(|old| old.spec.quotas.clone()).unwrap_or_default();
    let quotas = fields.nested("quotas", &LIMITS, |limits| Some(read_quotas(limits, &before, installation)));
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
            quotas: quotas.unwrap_or_default(),
        })
    })
}

/// An object whose limit is in force already sets nothing: a client may send back what it read. A number is set, also that of
/// the installation, which the Frontdoor then keeps.
fn read_quotas(limits: &mut Fields, before: &Quotas, installation: &Quotas) -> Quotas {
    let set = |kind: QuotaKind| {
        let is_read = limits.is_object(quota_name(kind));
        let limit: QuotaLimit = limits.integer_or_part(quota_name(kind), "limit")?;
        let is_in_force = limit == before.within(installation, kind);
        let limit = if is_read && is_in_force { before.get(kind) } else { Some(limit) };
        limit.map(|limit| QuotaSetting { kind, limit })
    };
    QuotaKind::of_frontdoor().filter_map(set).collect()
}

/// The body of PUT that a merge patch of the Frontdoor stands for.
pub(in crate::api) fn merged(row: &FrontdoorRow, patch: Map<String, Value>) -> Map<String, Value> {
    let own = QuotaKind::of_frontdoor().filter_map(|kind| {
        row.spec.quotas.get(kind).map(|limit| (quota_name(kind).to_owned(), json!(limit.get())))
    });
    let own = Value::Object(own.collect());
    patched(&Frontdoor { quotas: Some(own), ..Frontdoor::of(row.clone()) }, PROPERTIES, patch)
}

/// The name of an organization, chosen by the operator or its identity provider.
pub(super) fn organization_name(text: &str) -> Result<String, Invalid> {
    if (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(Invalid("must be 1 to 128 printable ASCII characters without spaces".to_owned()))
    }
}
