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
use crate::{error::ApiError, state::now};
use axum::http::StatusCode;
use std::collections::BTreeMap;
use wicketgate_model::{FailureReason, ShareId, TunnelId};
use wicketgate_store::{MetricsWindow, Sample, Store, TrafficScope};

pub(super) async fn of_share(
    ReadsShares(at): ReadsShares,
    Id(id): Id<ShareId>,
    format: Format,
    query: Query,
) -> Answer {
    let window = window(query, now())?;
    let share = shares::find(&at, id).await?.id;
    let samples = samples(&at.state.store, TrafficScope::Share(share), &window).await?;
    let metrics = Metrics::new("ipsec-share", share.to_string(), &window, samples);
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
    let samples = samples(&at.state.store, TrafficScope::Tunnel(tunnel), &window).await?;
    let metrics = Metrics::new("ipsec-tunnel", tunnel.to_string(), &window, samples);
    let links = vec![("self", format!("{}/{tunnel}/metrics", at.path("ipsec-tunnels")))];
    Ok(format.one(StatusCode::OK, &metrics, links))
}

/// What was carried in each sample of a window, and its failures by their reasons.
async fn samples(
    store: &Store,
    scope: TrafficScope,
    window: &MetricsWindow,
) -> Result<Vec<(Sample, BTreeMap<FailureReason, u64>)>, ApiError> {
    let samples = store.traffic(scope, window).await?;
    let by_reason = store.failures(scope, window).await?;
    Ok(samples.into_iter().zip(by_reason).collect())
}
