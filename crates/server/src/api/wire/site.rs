//! What the site page asks for, and is told: one tunnel as the engineer of its remote site needs it.
//!
//! Invariant: nothing of the provider beyond the tunnel is told: no target, no agent, no environment, no account and no other
//! tunnel. Messages of the gateway and its agents are not passed on, but told again in words of this module's children.

pub(in crate::api) mod heard;
pub(super) mod words;

use super::{
    fields::Fields,
    property::{
        Property,
        PropertyType::{Enum, Id, Text},
    },
    vpn_config::FORMATS,
};
use crate::error::ApiError;
use heard::{Heard, HeardFacts};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Map, Value};
use std::net::Ipv4Addr;
use wicketgate_model::{
    ConnectionFault, ConnectionState, IngressPort, Invalid, PeerAddress, PeerCidr, Reason, ResourceName,
    ShareId, Status,
};
use wicketgate_store::{ShareRow, TunnelRow};
use words::Words;

pub(in crate::api) static OPENING: &[Property] = &[
    Property::new("token", Text).described_as("linkToken").required(),
    Property::new("passphrase", Text).described_as("givenPassphrase").writable(),
];
const SESSION: Property = Property::new("session", Text).described_as("siteSession").required();
pub(in crate::api) static SESSION_ONLY: &[Property] = &[SESSION];
pub(in crate::api) static CONFIGURATION: &[Property] =
    &[SESSION, Property::new("format", Enum(FORMATS)).required()];
pub(in crate::api) static CHECK: &[Property] = &[SESSION, Property::new("shareId", Id("shr-")).required()];

/// A link's token, and its passphrase if the page has asked for it.
#[derive(Debug)]
pub(in crate::api) struct Opening {
    pub(in crate::api) token: SecretString,
    pub(in crate::api) passphrase: Option<SecretString>,
}

pub(in crate::api) fn opening(body: Map<String, Value>) -> Result<Opening, ApiError> {
    let mut fields = Fields::new(body, OPENING);
    let token = fields.parsed("token", secret);
    let passphrase = fields.parsed("passphrase", secret);
    fields.finish(|| Some(Opening { token: token?, passphrase }))
}

pub(in crate::api) fn session(body: Map<String, Value>) -> Result<SecretString, ApiError> {
    let mut fields = Fields::new(body, SESSION_ONLY);
    let session = fields.parsed("session", secret);
    fields.finish(|| session)
}

/// A session, and one of [`FORMATS`].
pub(in crate::api) fn configuration(body: Map<String, Value>) -> Result<(SecretString, String), ApiError> {
    let mut fields = Fields::new(body, CONFIGURATION);
    let session = fields.parsed("session", secret);
    let format = fields.parsed("format", |text| {
        if FORMATS.contains(&text) { Ok(text.to_owned()) } else { Err(Invalid::none_of(FORMATS)) }
    });
    fields.finish(|| session.zip(format))
}

pub(in crate::api) fn check(body: Map<String, Value>) -> Result<(SecretString, ShareId), ApiError> {
    let mut fields = Fields::new(body, CHECK);
    let session = fields.parsed("session", secret);
    let share = fields.text("shareId");
    fields.finish(|| session.zip(share))
}

/// Any text: a wrong one is refused like any other that is not known.
fn secret(text: &str) -> Result<SecretString, Invalid> {
    Ok(text.into())
}

/// An open page.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct SiteSession<'a> {
    pub(in crate::api) session: &'a str,
    pub(in crate::api) expires_at: Timestamp,
}

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct SiteTunnel {
    name: ResourceName,
    provider: Provider,
    peer_public_ip: PeerAddress,
    peer_cidr: PeerCidr,
    load_balancer_ip: Ipv4Addr,
    formats: &'static [&'static str],
    /// Why nothing can come of the device's tries.
    status_detail: Option<SiteDetail>,
    connection: SiteConnection,
    heard: Heard,
    shares: Vec<SiteShare>,
}

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Provider {
    /// The gateway's.
    peer_address: Option<Ipv4Addr>,
}

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SiteConnection {
    state: ConnectionState,
    since: Timestamp,
    last_error: Option<SiteError>,
}

#[derive(Debug, Serialize)]
struct SiteError {
    reason: ConnectionFault,
    #[serde(flatten)]
    words: Words,
    since: Timestamp,
}

#[serde_with::skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::api) struct SiteShare {
    id: ShareId,
    name: ResourceName,
    ingress_port: IngressPort,
    /// What the site's hosts connect to.
    address: String,
    ready: bool,
    status_detail: Option<SiteDetail>,
}

#[derive(Debug, Serialize)]
struct SiteDetail {
    reason: Reason,
    #[serde(flatten)]
    words: Words,
}

impl SiteDetail {
    fn of(reason: Reason) -> Self {
        Self { reason, words: words::of(reason) }
    }
}

impl SiteTunnel {
    pub(in crate::api) fn of(facts: &HeardFacts<'_>, shares: Vec<SiteShare>) -> Self {
        let TunnelRow { spec, standing, load_balancer_ip, .. } = facts.tunnel;
        let connection = &facts.connection;
        let detail = standing.detail.as_ref().filter(|_| standing.status != Status::Deployed);
        let last_error = connection.last_error.as_ref().map(|error| SiteError {
            reason: error.reason,
            words: heard::fault(error, facts),
            since: error.since,
        });
        Self {
            name: spec.name.clone(),
            provider: Provider { peer_address: facts.gateway },
            peer_public_ip: spec.peer_address,
            peer_cidr: spec.peer_cidr,
            load_balancer_ip: *load_balancer_ip,
            formats: FORMATS,
            status_detail: detail.map(|detail| SiteDetail::of(detail.problem.reason)),
            connection: SiteConnection { state: connection.state, since: connection.since, last_error },
            heard: Heard::of(facts),
            shares,
        }
    }
}

impl SiteShare {
    /// The share as it is now.
    pub(in crate::api) fn of(row: &ShareRow, load_balancer: Ipv4Addr) -> Self {
        let port = row.spec.ingress_port;
        Self {
            id: row.id,
            name: row.spec.name.clone(),
            ingress_port: port,
            address: format!("{load_balancer}:{port}"),
            ready: row.standing.serves(),
            status_detail: row.standing.detail.as_ref().map(|detail| SiteDetail::of(detail.problem.reason)),
        }
    }
}
