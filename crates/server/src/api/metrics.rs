//! What a share or a tunnel carried.

use super::{
    access::{Answer, Id, ReadsShares},
    shares, tunnels,
    wire::{
        answer::Format,
        metrics::{Metrics, window},
        query::Query,
    },
};
use crate::state::now;
use axum::http::StatusCode;
use wicketgate_model::{ShareId, TunnelId};
use wicketgate_store::TrafficScope;

pub(super) async fn of_share(
    ReadsShares(at): ReadsShares,
    Id(id): Id<ShareId>,
    format: Format,
    query: Query,
) -> Answer {
    let window = window(query, now())?;
    let share = shares::find(&at, id).await?.id;
    let samples = at.state.store.traffic(TrafficScope::Share(share), &window).await?;
    let metrics = Metrics::new("ipsec-share", share.to_string(), &window, &samples);
    let links = vec![("self", format!("{}/{share}/metrics", at.path("ipsec-shares")))];
    Ok(format.one(StatusCode::OK, &metrics, links))
}

pub(super) async fn of_tunnel(
    ReadsShares(at): ReadsShares,
    Id(id): Id<TunnelId>,
    format: Format,
    query: Query,
) -> Answer {
    let window = window(query, now())?;
    let tunnel = tunnels::find(&at, id).await?.id;
    let samples = at.state.store.traffic(TrafficScope::Tunnel(tunnel), &window).await?;
    let metrics = Metrics::new("ipsec-tunnel", tunnel.to_string(), &window, &samples);
    let links = vec![("self", format!("{}/{tunnel}/metrics", at.path("ipsec-tunnels")))];
    Ok(format.one(StatusCode::OK, &metrics, links))
}
