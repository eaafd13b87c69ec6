//! `/{frontdoorId}/ipsec-tunnels/{id}/vpn-config`

use super::{
    access::{Answer, Id, WritesShares},
    refusal::refused,
    tunnels::find,
    wire::{
        answer::Format,
        query::Query,
        tunnel::Tunnel,
        vpn_config::{FORMATS, RenderError, VpnConfig, render},
    },
};
use crate::{
    error::{ApiError, ResourceKind, capitalized},
    state::AppState,
};
use axum::{
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG},
    },
    response::IntoResponse,
};
use tracing::error;
use wicketgate_model::{EspMode, Status, TunnelId};
use wicketgate_store::{TunnelRow, WriteContext};

/// Requires the write scope: the answer contains the pre-shared key. Every read is recorded before it is answered, so
/// no cache may keep the answer, and it is never a 304.
pub(super) async fn get(
    WritesShares(at): WritesShares,
    Id(id): Id<TunnelId>,
    accepted: Result<Format, ApiError>,
    query: Query,
) -> Answer {
    let [format] = query.values(["format"])?;
    let format = format.as_deref().unwrap_or("json");
    if !FORMATS.contains(&format) {
        return Err(ApiError::bad_request(format!("format must be one of {}", FORMATS.join(", "))));
    }
    let tunnel = find(&at, id).await?;
    handed_out(&at.state, &tunnel, format, accepted, &at.write_context()).await
}

/// The configuration in one of [`FORMATS`], once it is recorded who reads the key.
pub(super) async fn handed_out(
    state: &AppState,
    tunnel: &TunnelRow,
    format: &str,
    accepted: Result<Format, ApiError>,
    context: &WriteContext,
) -> Answer {
    let id = tunnel.id;
    if !matches!(tunnel.standing.status, Status::Deployed | Status::Disabled) {
        let status = tunnel.standing.status;
        return Err(ApiError::conflict(format!(
            "IPsec tunnel {} is not DEPLOYED yet: its status is {status}",
            tunnel.named()
        )));
    }
    let gateway = state
        .gateways
        .public_address_at(&tunnel.spec.location)
        .ok_or_else(|| ApiError::conflict("The gateway has no public address: it runs without IPsec"))?;
    // Such a gateway supports ESP only in UDP (RFC 3948).
    let is_userland = state.gateways.esp_at(&tunnel.spec.location) == Some(EspMode::Userland);
    let config = VpnConfig::new(tunnel, gateway, is_userland);
    let mut answer = match render(format, &config) {
        None => {
            accepted?.one(StatusCode::OK, &config, vec![("ipsecTunnel", Tunnel::path(tunnel.frontdoor, id))])
        }
        Some(text) => {
            let text = text.map_err(|error| match error {
                RenderError::Inexpressible(why) => ApiError::conflict(capitalized(&why.to_string())),
                RenderError::Template(error) => {
                    error!(tunnel.id = %id, format, %error, "the template of a device format failed");
                    ApiError::internal(format_args!("tunnel {id}"))
                }
            })?;
            ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
        }
    };
    answer.headers_mut().insert(CACHE_CONTROL, axum::http::HeaderValue::from_static("no-store"));
    answer.headers_mut().remove(ETAG);
    let recorded = state.store.record_key_read(tunnel.frontdoor, id, context).await;
    recorded.map_err(refused(ResourceKind::Tunnel, tunnel.named()))?;
    Ok(answer)
}
