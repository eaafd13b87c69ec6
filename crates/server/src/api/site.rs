//! `/site/…`: the page of a remote site's engineer, who has a handover link and no account. A link opens a session; each other call
//! has the session in its body.
//!
//! Invariant: no token is in a path, a header or a log. Whatever is wrong with a link or a session, the answer is the same.

use super::{
    access::Answer,
    checks,
    request_context::RequestContext,
    shares, vpn_config,
    wire::{
        answer::Format,
        body::SmallBody,
        check::for_site::SiteCheck,
        site::{self, Opening, SiteSession, SiteShare, SiteTunnel, heard::HeardFacts},
    },
};
use crate::{
    auth::{
        client_secret::sha256,
        failure::{AuthenticationFailure, FailureCause},
        handover_token::HandoverToken,
        passphrase::Place,
    },
    error::{ApiError, ResourceKind},
    site_desk::{LogRead, SiteCall},
    state::{AppState, now},
};
use axum::{
    Json,
    extract::State,
    http::header::CACHE_CONTROL,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use std::{net::IpAddr, net::Ipv4Addr, time::Duration};
use tokio::time::timeout;
use uuid::Uuid;
use wicketgate_link::IKE_LOG_LINES;
use wicketgate_model::{Connection, HandoverLinkId};
use wicketgate_store::{
    AuthenticationSubject, Filter, FilterValue, HandoverLinkRow, HandoverLinkState, ListRequest, PageRequest,
    TunnelRow, WriteContext, column::share as column,
};

/// Shares that a page shows; more than one tunnel usually has.
const MOST_SHARES: u32 = 1000;
/// A gateway that is there answers at once. Without an answer the page does not claim that no packet has arrived.
const LOG_WITHIN: Duration = Duration::from_secs(1);
/// Parts of a log that are read at a time: all of it.
const LOG_PARTS: usize = 5;

/// A call with a session, and the tunnel that it is about.
struct Visit {
    link: HandoverLinkRow,
    tunnel: TunnelRow,
}

/// Counts a use of the link.
pub(super) async fn open(
    State(state): State<AppState>,
    request: RequestContext,
    SmallBody(body): SmallBody,
) -> Answer {
    let Opening { token, passphrase } = site::opening(body.object()?)?;
    state.site.admits(request.address())?;
    let link = state.store.handover_link_with_token(&sha256(token.expose_secret())).await?;
    let invalid = link.as_ref().map(|link| failure(FailureCause::LinkInvalid, link));
    let link = link.filter(|link| link.state(now()) == HandoverLinkState::Active);
    let visit = visit(&state, request.address(), link).await;
    let Visit { link, .. } = visit.map_err(|error| error.failing_as(invalid))?;
    if let Some(kept) = &link.spec.passphrase {
        let given = passphrase.ok_or_else(ApiError::passphrase_required)?;
        let place = Place::take().await?;
        state.site.tries_passphrase(link.id)?;
        if !place.compare(given, kept.clone()).await? {
            state.site.was_wrong(request.address());
            let wrong = failure(FailureCause::PassphraseWrong, &link);
            return Err(ApiError::passphrase_wrong().failing(wrong));
        }
        state.site.has_passphrase(link.id);
    }
    request.is_of(&actor(link.id));
    let session = HandoverToken::of_session()?;
    let opened =
        state.store.open_handover_link(link.id, session.sha256(), &context(link.id, &request)).await?;
    let opened = opened.ok_or_else(|| ApiError::link_invalid().failing_as(invalid))?;
    let expires_at = opened.spec.expires_at;
    Ok(told(&SiteSession { session: session.expose(), expires_at }))
}

pub(super) async fn tunnel(
    State(state): State<AppState>,
    request: RequestContext,
    SmallBody(body): SmallBody,
) -> Answer {
    let session = site::session(body.object()?)?;
    let Visit { tunnel, .. } = enter(&state, &request, &session, SiteCall::Tunnel).await?;
    let facts = facts(&state, &tunnel, request.address()).await;
    let request = ListRequest {
        page: PageRequest { number: 0, size: MOST_SHARES },
        filters: vec![Filter {
            column: &column::TUNNEL,
            values: vec![FilterValue::Text(tunnel.id.to_string())],
        }],
        ..ListRequest::default()
    };
    let rows = state.store.shares(tunnel.frontdoor, &request).await?.rows.into_iter();
    let shown = rows.map(|row| SiteShare::of(&shares::present(&state, row), tunnel.load_balancer_ip));
    Ok(told(&SiteTunnel::of(&facts, shown.collect())))
}

/// The key is handed out: recorded as by the link.
pub(super) async fn configuration(
    State(state): State<AppState>,
    request: RequestContext,
    SmallBody(body): SmallBody,
) -> Answer {
    let (session, format) = site::configuration(body.object()?)?;
    let Visit { link, tunnel } = enter(&state, &request, &session, SiteCall::Configuration).await?;
    // A new key has ended the link, and must not be given to it: the tunnel may have been read after that.
    let again = state.store.handover_link_of_session(&sha256(session.expose_secret())).await?;
    if again.is_none_or(|link| link.has_ended(now())) {
        return Err(ApiError::link_invalid().failing(FailureCause::SessionEnded.into()));
    }
    if !vpn_config::is_at_gateway(&tunnel) {
        return Err(ApiError::conflict(
            "The provider's gateway is not ready for the tunnel yet: try again soon",
        ));
    }
    vpn_config::handed_out(&state, &tunnel, &format, Ok(Format::Json), &context(link.id, &request)).await
}

pub(super) async fn check(
    State(state): State<AppState>,
    request: RequestContext,
    SmallBody(body): SmallBody,
) -> Answer {
    let (session, id) = site::check(body.object()?)?;
    let Visit { tunnel, .. } = enter(&state, &request, &session, SiteCall::Check).await?;
    let share = state.store.share(tunnel.frontdoor, id).await?;
    let share = share.filter(|share| share.spec.tunnel == tunnel.id && share.standing.status.is_live());
    let share = share.ok_or_else(|| ApiError::not_found(ResourceKind::Share, id))?;
    let facts = facts(&state, &tunnel, None).await;
    let check = checks::walked(&state, &share, &tunnel, |walked| SiteCheck::of(walked, facts)).await?;
    Ok(told(&check))
}

/// The link of the session and its tunnel, if the source and the link may make this call now.
async fn enter(
    state: &AppState,
    request: &RequestContext,
    session: &SecretString,
    call: SiteCall,
) -> Result<Visit, ApiError> {
    state.site.admits(request.address())?;
    let link = state.store.handover_link_of_session(&sha256(session.expose_secret())).await?;
    let ended = link.as_ref().map(|_| FailureCause::SessionEnded.into());
    let visit = visit(state, request.address(), link.filter(|link| !link.has_ended(now()))).await;
    let visit = visit.map_err(|error| error.failing_as(ended))?;
    request.is_of(&actor(visit.link.id));
    state.site.calls(visit.link.id, call)?;
    Ok(visit)
}

/// Of a link that has a live tunnel, in a Frontdoor that may have tunnels.
async fn visit(
    state: &AppState,
    source: Option<IpAddr>,
    link: Option<HandoverLinkRow>,
) -> Result<Visit, ApiError> {
    if let Some(link) = link
        && let Some(tunnel) = state.store.tunnel(link.frontdoor, link.tunnel).await?
        && tunnel.standing.status.is_live()
        && let Some(frontdoor) = state.store.frontdoor(link.frontdoor).await?
        && frontdoor.spec.ipsec_shares_enabled
    {
        return Ok(Visit { link, tunnel });
    }
    state.site.was_wrong(source);
    Err(ApiError::link_invalid())
}

/// The actor of what a session does.
fn context(link: HandoverLinkId, request: &RequestContext) -> WriteContext {
    WriteContext::new(actor(link), now(), Uuid::now_v7).of_request(request.origin.clone())
}

fn actor(link: HandoverLinkId) -> String {
    format!("handover:{link}")
}

/// A failure to open this link.
fn failure(cause: FailureCause, link: &HandoverLinkRow) -> AuthenticationFailure {
    AuthenticationFailure { cause, subject: Some(AuthenticationSubject::Link(link.frontdoor, link.id)) }
}

/// No cache may keep it, nor a browser's history.
fn told(it: &impl Serialize) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(it)).into_response()
}

/// `client`: the visitor's address, if it is known.
async fn facts<'a>(state: &AppState, tunnel: &'a TunnelRow, client: Option<IpAddr>) -> HeardFacts<'a> {
    let gateway = state.gateways.public_address_of(tunnel.gateway);
    let (packet_at, is_log_read) = match gateway {
        Some(_) => last_packet(state, tunnel).await,
        None => (None, false),
    };
    let client = client.and_then(|client| match client.to_canonical() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    });
    HeardFacts {
        tunnel,
        connection: tunnel.connection.clone().unwrap_or_else(|| Connection::down(tunnel.created_at)),
        gateway,
        is_gateway_connected: state
            .gateways
            .linked(tunnel.gateway)
            .is_some_and(|it| it.view.lock().is_connected),
        packet_at,
        is_log_read,
        visitor: client.filter(|client| is_unknown_peer(state, tunnel, *client)),
        at: now(),
    }
}

/// Whether IKE arrives from the address at the tunnel's gateway, and it is no tunnel's. To others, unknown peers are not told.
fn is_unknown_peer(state: &AppState, tunnel: &TunnelRow, address: Ipv4Addr) -> bool {
    state
        .gateways
        .linked(tunnel.gateway)
        .is_some_and(|gateway| gateway.view.lock().unknown_peers.iter().any(|peer| peer.address == address))
}

/// When the last packet of IKE arrived from the device, and whether the log was read to its end. Only what was written since the
/// last call is read.
async fn last_packet(state: &AppState, tunnel: &TunnelRow) -> (Option<Timestamp>, bool) {
    let mut read = state.site.log_read(tunnel.id);
    let gateway = state.gateways.linked(tunnel.gateway);
    let Some(gateway) = gateway.filter(|gateway| gateway.view.lock().is_connected) else {
        return (read.packet_at, false);
    };
    for _ in 0..LOG_PARTS {
        let asked = gateway.rpc.ike_log(tunnel.id, read.line);
        let Ok(Some(lines)) = timeout(LOG_WITHIN, asked).await else { break };
        let packet = lines.iter().rfind(|line| line.text.starts_with("received packet: "));
        read = LogRead {
            line: lines.last().map_or(read.line, |line| line.number),
            packet_at: packet.map(|line| line.at).or(read.packet_at),
        };
        state.site.read_log(tunnel.id, read);
        if lines.len() < IKE_LOG_LINES {
            return (read.packet_at, true);
        }
    }
    (read.packet_at, false)
}
