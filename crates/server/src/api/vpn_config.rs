//! `/{frontdoorId}/ipsec-tunnels/{id}/vpn-config`

use super::{
    access::{Answer, Id, WritesShares},
    endpoints::gateways_of,
    tunnels::find,
    wire::{
        answer::Format,
        query::Query,
        tunnel::Tunnel,
        vpn_config::{FORMATS, RenderError, VpnConfig, render},
    },
};
use crate::{
    error::{ApiError, capitalized},
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
    if !is_at_gateway(&tunnel) {
        let (named, status) = (tunnel.named(), tunnel.standing.status);
        return Err(ApiError::conflict(format!(
            "IPsec tunnel {named} is not DEPLOYED yet: its status is {status}"
        )));
    }
    handed_out(&at.state, &tunnel, format, accepted, &at.write_context()).await
}

/// Whether the gateway knows the tunnel as it is, so that a device with its configuration can connect.
pub(super) fn is_at_gateway(tunnel: &TunnelRow) -> bool {
    matches!(tunnel.standing.status, Status::Deployed | Status::Disabled)
}

/// The configuration in one of [`FORMATS`], once it is recorded who reads the key. Its reader may be the engineer of the site:
/// no error has an id.
pub(super) async fn handed_out(
    state: &AppState,
    tunnel: &TunnelRow,
    format: &str,
    accepted: Result<Format, ApiError>,
    context: &WriteContext,
) -> Answer {
    let id = tunnel.id;
    // It tells both when it connects for the first time.
    let esp = state.gateways.esp_of(tunnel.gateway).ok_or_else(ApiError::gateway_not_connected)?;
    let of = gateways_of(state, tunnel).await?;
    let addresses: Vec<_> = of.iter().filter_map(|id| state.gateways.public_address_of(Some(*id))).collect();
    if addresses.is_empty() {
        return Err(ApiError::conflict("The gateway has no public address: it runs without IPsec"));
    }
    // Such a gateway supports ESP only in UDP (RFC 3948).
    let is_userland = of.iter().any(|id| state.gateways.esp_of(Some(*id)) == Some(EspMode::Userland));
    let config = VpnConfig::new(tunnel, &addresses, esp == EspMode::Userland || is_userland)
        .ok_or_else(|| ApiError::conflict("The tunnel was deleted, and its key erased"))?;
    let mut answer = match render(format, &config) {
        None => {
            accepted?.one(StatusCode::OK, &config, vec![("ipsecTunnel", Tunnel::path(tunnel.frontdoor, id))])
        }
        Some(text) => {
            let text = text.map_err(|error| not_rendered(error, tunnel, format))?;
            ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
        }
    };
    answer.headers_mut().insert(CACHE_CONTROL, axum::http::HeaderValue::from_static("no-store"));
    answer.headers_mut().remove(ETAG);
    state.store.record_key_read(tunnel.frontdoor, id, context).await?;
    Ok(answer)
}

fn not_rendered(error: RenderError, tunnel: &TunnelRow, format: &str) -> ApiError {
    match error {
        RenderError::Inexpressible(why) => ApiError::conflict(capitalized(&why.to_string())),
        RenderError::Template(error) => {
            let (id, name) = (tunnel.id, &tunnel.spec.name);
            error!(tunnel.id = %id, tunnel.name = %name, format, %error, "the template of a device format failed");
            ApiError::internal(format_args!("the format {format} of tunnel {name}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::site::heard::tests::tunnel;
    use minijinja::{Error, ErrorKind};

    #[test]
    fn a_template_that_fails_is_told_without_an_id() {
        let error = RenderError::Template(Error::new(ErrorKind::UndefinedError, "preSharedKey"));
        let told = format!("{:?}", not_rendered(error, &tunnel(), "vyos"));
        assert!(told.contains("see the server log for the format vyos of tunnel customer-a"), "{told}");
        assert!(!told.contains("tnl-") && !told.contains("preSharedKey"), "{told}");
    }
}
