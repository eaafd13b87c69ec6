//! `/{frontdoorId}/ipsec-tunnels/{id}/ike-log`: the last lines of a tunnel's IKE log, and further ones as they are written.

use super::{
    access::{Answer, Id, ReadsShares},
    endpoints::gateways_of,
    events::{HEARTBEAT, LONGEST, SLOW, UNBUFFERED},
    lasting::Permission,
    refusal::must_be_live,
    tunnels,
    wire::{
        ike_log::{self, LogFormat, LogRequest},
        query::Query,
    },
};
use crate::{
    error::{ApiError, ResourceKind},
    gateways::Gateways,
};
use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::IntoResponse,
};
use futures_util::stream;
use std::{convert::Infallible, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use wicketgate_link::{IKE_LOG_LINES, IkeLogLine};
use wicketgate_model::{EspMode, GatewayId, TunnelId};

/// How often a gateway is asked for further lines: a reader sees them as they are written.
const ASKED_EVERY: Duration = Duration::from_millis(500);
/// Parts on the way to a reader.
const ON_THE_WAY: usize = 8;

pub(super) async fn read(
    ReadsShares(at): ReadsShares,
    Id(id): Id<TunnelId>,
    headers: HeaderMap,
    query: Query,
) -> Answer {
    let format = LogFormat::accepted(&headers).ok_or_else(ApiError::not_acceptable)?;
    let request = ike_log::request(&headers, query)?;
    let tunnel = tunnels::find(&at, id).await?;
    must_be_live(ResourceKind::Tunnel, tunnel.named(), tunnel.standing.status)?;
    let of = gateways_of(&at.state, &tunnel).await?;
    let gateway = match request.gateway {
        Some(id) if !of.contains(&id) => {
            return Err(ApiError::not_found(ResourceKind::Gateway, id));
        }
        Some(id) => Some(id),
        // Lines are numbered by each gateway.
        None => tunnel.gateway,
    };
    if at.state.gateways.esp_of(gateway) == Some(EspMode::Off) {
        return Err(ApiError::conflict("The gateway runs without IPsec: there is no IKE log"));
    }
    let follows = request.follow;
    let mut reader = Reader { gateways: at.state.gateways.clone(), gateway, tunnel: id, format, request };
    let silent = || ApiError::unavailable("The gateway does not answer: try again later");
    let written = reader.read().await.ok_or_else(silent)?;
    let body = if follows {
        let (place, permission) = (at.state.follow(&at.frontdoor)?, Permission::of(&at, &headers));
        let (send, receive) = mpsc::channel(ON_THE_WAY);
        let over = at.state.feed.over().clone();
        tokio::spawn(async move {
            tokio::select! {
                () = reader.follow(written, send) => {}
                () = permission.ended() => {}
                () = over.cancelled() => {}
            }
            drop(place);
        });
        Body::from_stream(stream::unfold(receive, async |mut receive: mpsc::Receiver<String>| {
            receive.recv().await.map(|text| (Ok::<_, Infallible>(text), receive))
        }))
    } else {
        Body::from(written)
    };
    let headers =
        [(CONTENT_TYPE, format.media_type()), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((headers, [UNBUFFERED], body).into_response())
}

struct Reader {
    gateways: Gateways,
    gateway: Option<GatewayId>,
    tunnel: TunnelId,
    format: LogFormat,
    /// From the last line that was read on.
    request: LogRequest,
}

impl Reader {
    /// The lines since the last call; `None`: no gateway answers.
    async fn read(&mut self) -> Option<String> {
        let mut text = String::new();
        loop {
            let answer = self.gateways.ike_log(self.gateway, self.tunnel, self.request.after).await;
            // What was read counts as delivered, and is.
            let Some(lines) = answer else { return (!text.is_empty()).then_some(text) };
            let is_all = lines.len() < IKE_LOG_LINES;
            let is_wanted = |line: &&IkeLogLine| self.request.from.is_none_or(|from| line.at >= from);
            text.extend(lines.iter().filter(is_wanted).map(|line| self.format.line(line)));
            if let Some(last) = lines.last() {
                self.request.after = last.number;
            }
            if is_all {
                return Some(text);
            }
        }
    }

    /// Sends what was written and what will be, until the reader has gone, is too slow, or must reconnect.
    async fn follow(mut self, written: String, send: mpsc::Sender<String>) {
        let (end, mut sent_at) = (Instant::now() + LONGEST, Instant::now());
        let mut next = self.format.greeting() + &written;
        while Instant::now() < end {
            if next.is_empty() && sent_at.elapsed() >= HEARTBEAT {
                next = self.format.heartbeat();
            }
            if !next.is_empty() {
                sent_at = Instant::now();
                let Ok(Ok(())) = timeout(SLOW, send.send(next)).await else { return };
            }
            tokio::select! {
                () = sleep(ASKED_EVERY) => {}
                () = send.closed() => return,
            }
            // A gateway that restarts is back soon.
            next = self.read().await.unwrap_or_default();
        }
    }
}
