//! The gateways of tunnels, for requests about all of them.
//!
//! While there is one gateway only, the tunnel's row says all, and nothing else is read.

use super::wire::tunnel::TunnelEndpoint;
use crate::{error::ApiError, gateways::Gateways, state::AppState};
use std::collections::HashMap;
use wicketgate_model::{Connection, EspMode, GatewayId, TunnelId};
use wicketgate_store::{EndpointRow, TunnelRow};

/// The endpoints of tunnels that may have several, by tunnel. Those of the others follow from their rows.
#[derive(Debug, Default)]
pub(super) struct EndpointTable(HashMap<TunnelId, Vec<EndpointRow>>);

impl EndpointTable {
    pub(super) async fn of(state: &AppState, rows: &[TunnelRow]) -> Result<Self, ApiError> {
        if !state.gateways.are_several() {
            return Ok(Self::default());
        }
        let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
        let mut of: HashMap<TunnelId, Vec<EndpointRow>> = HashMap::new();
        for row in state.store.endpoints(&ids).await? {
            of.entry(row.tunnel).or_default().push(row);
        }
        Ok(Self(of))
    }

    /// In the order of their places.
    pub(super) fn shown(&self, tunnel: &TunnelRow, gateways: &Gateways) -> Vec<TunnelEndpoint> {
        let peer_cidr = tunnel.spec.peer_cidr;
        let down = || Connection::down(tunnel.created_at);
        match self.0.get(&tunnel.id).map(Vec::as_slice) {
            Some(several @ [_, _, ..]) => several
                .iter()
                .map(|row| {
                    let connection = row.connection.clone().unwrap_or_else(down);
                    let address = gateways.public_address_of(Some(row.gateway));
                    TunnelEndpoint::new(
                        row.gateway,
                        address,
                        row.serves(tunnel.generation),
                        (connection, peer_cidr),
                    )
                })
                .collect(),
            _ => tunnel
                .gateway
                .map(|gateway| {
                    let connection = tunnel.connection.clone().unwrap_or_else(down);
                    let address = gateways.public_address_of(Some(gateway));
                    TunnelEndpoint::new(gateway, address, tunnel.standing.serves(), (connection, peer_cidr))
                })
                .into_iter()
                .collect(),
        }
    }
}

/// The gateways of a tunnel: those that it stays at first, and then in the order of their places.
pub(super) async fn gateways_of(state: &AppState, tunnel: &TunnelRow) -> Result<Vec<GatewayId>, ApiError> {
    let mut rows = endpoints_of(state, tunnel.id).await?;
    if rows.is_empty() {
        return Ok(tunnel.gateway.into_iter().collect());
    }
    rows.sort_by_key(|row| row.draining);
    Ok(rows.into_iter().map(|row| row.gateway).collect())
}

/// The gateways of a share's tunnel.
pub(super) async fn gateways_of_share(
    state: &AppState,
    tunnel: TunnelId,
    first: Option<GatewayId>,
) -> Result<Vec<GatewayId>, ApiError> {
    let rows = endpoints_of(state, tunnel).await?;
    if rows.is_empty() {
        return Ok(first.into_iter().collect());
    }
    Ok(rows.into_iter().map(|row| row.gateway).collect())
}

/// The gateway over which connections come: the tunnel is ready there, and the site is connected to it.
pub(super) async fn best_gateway(
    state: &AppState,
    tunnel: &TunnelRow,
) -> Result<Option<GatewayId>, ApiError> {
    let rows = endpoints_of(state, tunnel.id).await?;
    let is_without_ipsec = |row: &EndpointRow| state.gateways.esp_of(Some(row.gateway)) == Some(EspMode::Off);
    let is_worse = |row: &&EndpointRow| {
        let passes = row.connection.as_ref().is_some_and(Connection::passes) || is_without_ipsec(row);
        (!(row.serves(tunnel.generation) && passes), !passes)
    };
    match rows.as_slice() {
        [] | [_] => Ok(tunnel.gateway),
        several => Ok(several.iter().min_by_key(is_worse).map(|row| row.gateway)),
    }
}

/// Of a tunnel; empty if the tunnel has one gateway, or none.
async fn endpoints_of(state: &AppState, tunnel: TunnelId) -> Result<Vec<EndpointRow>, ApiError> {
    if !state.gateways.are_several() {
        return Ok(Vec::new());
    }
    Ok(state.store.endpoints(&[tunnel]).await?)
}
