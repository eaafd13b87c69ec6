//! Which gateways of a location serve a tunnel.
//!
//! Invariant: a tunnel stays where it is, since its site's device dials that address: it leaves a gateway only if that is draining,
//! and another one can serve it, or if it is gone. While its location has a gateway, it has one.

use crate::GatewayId;

/// A gateway of the location, as far as placement is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayLoad {
    pub id: GatewayId,
    /// The tunnels that are placed at it.
    pub tunnels: u64,
    /// As many as it can hold; `None`: that is not known.
    pub max_tunnels: Option<u32>,
    /// It is to be emptied: it gets no more.
    pub is_draining: bool,
}

impl GatewayLoad {
    /// Whether it can take another tunnel.
    fn takes_more(&self) -> bool {
        !self.is_draining && self.max_tunnels.is_none_or(|most| self.tunnels < u64::from(most))
    }
}

/// The gateways at which a tunnel is to be served, the preferred one first: no more than `wanted`, and one at least, unless there
/// are no gateways. It is served at `current` now.
///
/// A second gateway needs to have room. The first has it if any gateway does.
pub fn place(gateways: &[GatewayLoad], current: &[GatewayId], wanted: usize) -> Vec<GatewayId> {
    let known = |id: &GatewayId| gateways.iter().find(|gateway| gateway.id == *id);
    let current: Vec<_> = current.iter().filter_map(known).collect();
    let mut placed: Vec<_> = current.iter().filter(|gateway| !gateway.is_draining).map(|g| g.id).collect();
    placed.truncate(wanted);
    let mut others: Vec<_> =
        gateways.iter().filter(|gateway| gateway.takes_more() && !placed.contains(&gateway.id)).collect();
    others.sort_unstable_by_key(|gateway| (gateway.tunnels, gateway.id));
    placed.extend(others.iter().take(wanted.saturating_sub(placed.len())).map(|gateway| gateway.id));
    if placed.is_empty() && wanted > 0 {
        let least = || gateways.iter().min_by_key(|g| (g.is_draining, g.tunnels, g.id));
        placed.extend(current.first().copied().or_else(least).map(|gateway| gateway.id));
    }
    placed
}

/// A place of a tunnel, and what its gateway reports of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedEndpoint {
    pub gateway: GatewayId,
    /// The tunnel is ready at it.
    pub is_ready: bool,
    /// The site is connected to it.
    pub is_connected: bool,
}

/// How the places of a tunnel change next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlacementStep {
    Add(GatewayId),
    Withdraw(GatewayId),
}

/// The next step from the `current` places to those that [`place`] chooses; `None`: there is none, or it has to wait.
///
/// A new place is added before an old one is withdrawn. An old one is withdrawn once the tunnel is ready wherever it stays, and the site
/// is connected to one of these: its device has to be told the new address first.
pub fn placement_step(
    gateways: &[GatewayLoad],
    current: &[PlacedEndpoint],
    wanted: usize,
) -> Option<PlacementStep> {
    // The one that the site uses stays, if one has to go.
    let mut preferred = current.to_vec();
    if current.len() > wanted {
        preferred.sort_by_key(|endpoint| !endpoint.is_connected);
    }
    let ids: Vec<_> = preferred.iter().map(|endpoint| endpoint.gateway).collect();
    let target = place(gateways, &ids, wanted);
    if let Some(new) = target.iter().find(|id| !ids.contains(id)) {
        return Some(PlacementStep::Add(*new));
    }
    let stays = |endpoint: &&PlacedEndpoint| target.contains(&endpoint.gateway);
    let leaving = current.iter().find(|endpoint| !stays(endpoint))?.gateway;
    let stay: Vec<_> = current.iter().filter(stays).collect();
    let is_gone = !gateways.iter().any(|gateway| gateway.id == leaving);
    let goes_on = stay.iter().all(|endpoint| endpoint.is_ready) && stay.iter().any(|e| e.is_connected);
    (!stay.is_empty() && (is_gone || goes_on)).then_some(PlacementStep::Withdraw(leaving))
}

#[cfg(test)]
mod tests;
