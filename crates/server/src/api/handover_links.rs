//! `/{frontdoorId}/ipsec-tunnels/{id}/handover-links`: links for the engineer of a tunnel's remote site, who has no account.

use super::{
    access::{Answer, At, Id, ReadsShares, WritesShares},
    conditional::Preconditions,
    refusal::refused,
    tunnels,
    wire::{
        answer::{Format, Representation as _},
        body::Body,
        handover_link::{self, HandoverLink, LinkRequest, NewLink, link_request},
        query::Query,
    },
};
use crate::{
    auth::{handover_token::HandoverToken, passphrase::Place},
    error::{ApiError, ResourceKind},
    external::LinkBase,
    state::now,
};
use axum::{
    Extension,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, LOCATION},
    },
    response::IntoResponse,
};
use wicketgate_model::{HandoverLinkId, TunnelId};
use wicketgate_store::{HandoverLinkRow, HandoverLinkSpec};

pub(super) async fn list(
    ReadsShares(at): ReadsShares,
    Id(tunnel): Id<TunnelId>,
    format: Format,
    query: Query,
) -> Answer {
    let query = query.list(handover_link::PROPERTIES)?;
    let tunnel = tunnels::find(&at, tunnel).await?.id;
    let page = at.state.store.handover_links(tunnel, &query.request).await?;
    let now = now();
    let rows = page.rows.into_iter().map(|row| HandoverLink::of(row, now));
    Ok(format.page(&HandoverLink::list(at.id(), tunnel), &query, page.total, rows))
}

pub(super) async fn get(
    ReadsShares(at): ReadsShares,
    Id(tunnel): Id<TunnelId>,
    Id(id): Id<HandoverLinkId>,
    format: Format,
) -> Answer {
    Ok(format.resource(StatusCode::OK, &HandoverLink::of(find(&at, tunnel, id).await?, now())))
}

/// The token is only in this answer: the server stores its hash.
pub(super) async fn create(
    WritesShares(at): WritesShares,
    Id(tunnel): Id<TunnelId>,
    base: Option<Extension<LinkBase>>,
    format: Format,
    body: Body,
) -> Answer {
    let tunnel = tunnels::find(&at, tunnel).await?;
    let context = at.write_context();
    let LinkRequest { description, expires_at, max_uses, passphrase } =
        link_request(body.object_or_nothing()?, context.at)?;
    let refused = |e| refused(ResourceKind::Tunnel, tunnel.named())(e);
    let passphrase = match passphrase {
        Some(passphrase) => {
            // Before a computation whose result would be of no use.
            let room = at.state.store.has_room_for_link(tunnel.id, context.at).await;
            room.map_err(refused)?;
            Some(Place::to_create(&at.frontdoor.spec.organization).await?.kept(passphrase).await?)
        }
        None => None,
    };
    let token = HandoverToken::of_link()?;
    let spec =
        HandoverLinkSpec { description, expires_at, max_uses, passphrase, token_sha256: token.sha256() };
    let made = at.state.store.create_handover_link(at.id(), tunnel.id, &spec, &context).await;
    let link = HandoverLink::of(made.map_err(refused)?, context.at);
    let base = base.map_or_else(String::new, |Extension(LinkBase(base))| base);
    let shown =
        NewLink { token: token.expose(), url: format!("{base}/site#{}", token.expose()), link: &link };
    let answer = format.one(StatusCode::CREATED, &shown, link.links());
    Ok(([(CACHE_CONTROL, "no-store".to_owned()), (LOCATION, link.path())], answer).into_response())
}

/// Ends the link and the pages that it has opened. A link that was revoked before stays as it is.
pub(super) async fn revoke(
    WritesShares(at): WritesShares,
    Id(tunnel): Id<TunnelId>,
    Id(id): Id<HandoverLinkId>,
    wanted: Preconditions,
) -> Result<StatusCode, ApiError> {
    let link = find(&at, tunnel, id).await?;
    wanted.hold_for(&HandoverLink::of(link, now()))?;
    at.state.store.revoke_handover_link(at.id(), id, &at.write_context()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(at: &At, tunnel: TunnelId, id: HandoverLinkId) -> Result<HandoverLinkRow, ApiError> {
    let tunnel = tunnels::find(at, tunnel).await?.id;
    let link = at.state.store.handover_link(tunnel, id).await?;
    link.ok_or_else(|| ApiError::not_found(ResourceKind::HandoverLink, id))
}
