//! `/{frontdoorId}/ipsec-tunnels/{id}/vpn-config`

use super::{
    access::{InFrontdoor, PathId},
    tunnels::find,
    wire::{answer::Format, query::Query, strongswan, tunnel::Tunnel, vpn_config::VpnConfig},
};
use crate::{
    auth::Scope,
    error::{ApiError, Kind},
    state::AppState,
};
use axum::{
    extract::State,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use wicketgate_model::Status;

/// Needs to write: what is answered holds the key.
pub(super) async fn get(
    State(state): State<AppState>,
    at: InFrontdoor,
    id: PathId,
    accepted: Result<Format, ApiError>,
    query: Query,
) -> Result<Response, ApiError> {
    at.need_shares(Scope::Write)?;
    let id = id.parse(Kind::Tunnel)?;
    let [format] = query.values(["format"])?;
    let tunnel = find(&state, &at, id).await?;
    if tunnel.standing.status != Status::Deployed {
        let status = tunnel.standing.status;
        return Err(ApiError::conflict(format!(
            "IPsec tunnel {id} is not DEPLOYED yet: its status is {status}"
        )));
    }
    let gateway = state
        .gateway_address()
        .ok_or_else(|| ApiError::conflict("The gateway has no public address: it runs without IPsec"))?;
    let config = VpnConfig::new(&tunnel, gateway);
    match format.as_deref() {
        None | Some("json") => {
            let answer =
                accepted?.one(StatusCode::OK, &config, vec![("ipsecTunnel", Tunnel::path(at.id(), id))]);
            Ok(([(CACHE_CONTROL, "no-store")], answer).into_response())
        }
        Some("strongswan") => {
            let headers = [(CACHE_CONTROL, "no-store"), (CONTENT_TYPE, "text/plain; charset=utf-8")];
            Ok((headers, strongswan::swanctl(&config)).into_response())
        }
        Some(_) => Err(ApiError::bad_request("format must be json or strongswan")),
    }
}
