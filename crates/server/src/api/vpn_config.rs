//! `/{frontdoorId}/ipsec-tunnels/{id}/vpn-config`

use super::{
    access::{InFrontdoor, PathId},
    refusal::refused,
    tunnels::find,
    wire::{
        answer::Format,
        query::Query,
        tunnel::Tunnel,
        vpn_config::{FORMATS, VpnConfig, render},
    },
};
use crate::{
    auth::Scope,
    error::{ApiError, ResourceKind},
    state::AppState,
};
use axum::{
    extract::State,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG},
    },
    response::{IntoResponse, Response},
};
use wicketgate_model::Status;

/// Needs to write: what is answered holds the key. Who is given it is written down first, and every time: nothing of
/// it is kept by a cache, or answered with a 304.
pub(super) async fn get(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    accepted: Result<Format, ApiError>,
    query: Query,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Write)?;
    let id = id.parse(ResourceKind::Tunnel)?;
    let [format] = query.values(["format"])?;
    let format = format.as_deref().unwrap_or("json");
    if !FORMATS.contains(&format) {
        return Err(ApiError::bad_request(format!("format must be one of {}", FORMATS.join(", "))));
    }
    let tunnel = find(&state, &at, id).await?;
    if tunnel.standing.status != Status::Deployed {
        let status = tunnel.standing.status;
        return Err(ApiError::conflict(format!(
            "IPsec tunnel {id} is not DEPLOYED yet: its status is {status}"
        )));
    }
    let gateway = state
        .gateway_address(&tunnel.location)
        .ok_or_else(|| ApiError::conflict("The gateway has no public address: it runs without IPsec"))?;
    let config = VpnConfig::new(&tunnel, gateway, state.needs_udp_encapsulation(&tunnel.location));
    let mut answer = match render(format, &config) {
        None => accepted?.one(StatusCode::OK, &config, vec![("ipsecTunnel", Tunnel::path(at.id(), id))]),
        Some(text) => {
            let text = text.map_err(|why| ApiError::conflict(capitalized(&why.to_string())))?;
            ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
        }
    };
    answer.headers_mut().insert(CACHE_CONTROL, axum::http::HeaderValue::from_static("no-store"));
    answer.headers_mut().remove(ETAG);
    let recorded = state.store.record_key_read(at.id(), id, &state.write_context(&at.principal)).await;
    recorded.map_err(refused(ResourceKind::Tunnel, id))?;
    Ok(answer)
}

fn capitalized(sentence: &str) -> String {
    let mut chars = sentence.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
