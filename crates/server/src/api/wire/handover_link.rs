//! A handover link in JSON.

use super::{
    answer::{Links, Representation},
    fields::Fields,
    property::{
        LINKS, Property,
        PropertyType::{Boolean, Enum, Id, Integer, Text, Time},
    },
    tunnel::Tunnel,
};
use crate::error::ApiError;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};
use wicketgate_model::{Description, FrontdoorId, HandoverLinkId, MaxUses, Passphrase, TunnelId};
use wicketgate_store::{HandoverLinkRow, HandoverLinkState, column::handover_link as column};

/// A week of working days, for an engineer who is told of it on one of them.
const LIFETIME: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A link that is forgotten ends within a quarter.
const LONGEST_LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);
/// As in the document.
const USES: i64 = 20;

pub(in crate::api) static PROPERTIES: &[Property] = &[
    Property::new("id", Id("lnk-")).column(&column::ID),
    Property::new("ipsecTunnelId", Id("tnl-")),
    Property::new("description", Text).column(&column::DESCRIPTION).writable(),
    Property::new("expiresAt", Time).column(&column::EXPIRES_AT).writable().described_as("linkExpiresAt"),
    Property::new("maxUses", Integer).column(&column::MAX_USES).writable(),
    Property::new("uses", Integer).column(&column::USES),
    Property::new("lastUsedAt", Time).column(&column::LAST_USED_AT),
    Property::new("passphrase", Text).write_only(),
    Property::new("hasPassphrase", Boolean),
    Property::new("state", Enum(HandoverLinkState::NAMES)).described_as("linkState"),
    Property::new("createdAt", Time).column(&column::CREATED_AT),
    Property::new("createdBy", Text).column(&column::CREATED_BY),
    Property::new("revokedAt", Time).column(&column::REVOKED_AT).described_as("linkRevokedAt"),
    LINKS,
];

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct HandoverLink {
    #[serde(skip)]
    frontdoor: FrontdoorId,
    id: HandoverLinkId,
    ipsec_tunnel_id: TunnelId,
    description: Option<Description>,
    expires_at: Timestamp,
    max_uses: MaxUses,
    uses: u32,
    last_used_at: Option<Timestamp>,
    has_passphrase: bool,
    state: &'static str,
    created_at: Timestamp,
    created_by: String,
    revoked_at: Option<Timestamp>,
}

/// With its token, which is returned only once.
#[derive(Serialize)]
pub(in crate::api) struct NewLink<'a> {
    pub(in crate::api) token: &'a str,
    /// The address of the site page. The token is its fragment, which browsers send to no server.
    pub(in crate::api) url: String,
    #[serde(flatten)]
    pub(in crate::api) link: &'a HandoverLink,
}

impl HandoverLink {
    pub(in crate::api) fn of(row: HandoverLinkRow, now: Timestamp) -> Self {
        Self {
            state: row.state(now).as_str(),
            frontdoor: row.frontdoor,
            id: row.id,
            ipsec_tunnel_id: row.tunnel,
            description: row.spec.description,
            expires_at: row.spec.expires_at,
            max_uses: row.spec.max_uses,
            uses: row.uses,
            last_used_at: row.last_used_at,
            has_passphrase: row.spec.passphrase.is_some(),
            created_at: row.created_at,
            created_by: row.created_by,
            revoked_at: row.revoked_at,
        }
    }

    /// The path of a tunnel's list.
    pub(in crate::api) fn list(frontdoor: FrontdoorId, tunnel: TunnelId) -> String {
        format!("{}/handover-links", Tunnel::path(frontdoor, tunnel))
    }

    pub(in crate::api) fn path(&self) -> String {
        format!("{}/{}", Self::list(self.frontdoor, self.ipsec_tunnel_id), self.id)
    }
}

impl Representation for HandoverLink {
    const LIST: &'static str = "handoverLinkList";

    fn links(&self) -> Links {
        vec![("self", self.path()), ("ipsecTunnel", Tunnel::path(self.frontdoor, self.ipsec_tunnel_id))]
    }
}

/// A link as a body describes it.
#[derive(Debug)]
pub(in crate::api) struct LinkRequest {
    pub(in crate::api) description: Option<Description>,
    pub(in crate::api) expires_at: Timestamp,
    pub(in crate::api) max_uses: MaxUses,
    pub(in crate::api) passphrase: Option<Passphrase>,
}

pub(in crate::api) fn link_request(
    body: Map<String, Value>,
    now: Timestamp,
) -> Result<LinkRequest, ApiError> {
    let mut fields = Fields::new(body, PROPERTIES);
    let description = fields.text("description");
    let expires_at = fields.time("expiresAt").unwrap_or(now + LIFETIME);
    if expires_at <= now || expires_at > now + LONGEST_LIFETIME {
        let days = LONGEST_LIFETIME.as_hours() / 24;
        fields.fault("expiresAt", format!("must be in the future, and within {days} days"));
    }
    let max_uses = fields.integer("maxUses").or_else(|| MaxUses::try_from(USES).ok());
    let passphrase = fields.text("passphrase");
    fields.finish(|| Some(LinkRequest { description, expires_at, max_uses: max_uses?, passphrase }))
}
